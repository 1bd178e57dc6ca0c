#!/bin/sh
# rpm.sh: the RPM packages of this checkout's source archive, built by the spec, and what is in them;
# `make rpms`. Needs rpmbuild (Debian's package rpm), what `make build` needs, and root for the root that it installs into.
#
# Fedora's macros for Python are not to be had on other systems. Stand-ins do here what they do there, so
# that the spec's own lines run: what is built, what is packed and where, that no file is forgotten, and
# that what is installed into an empty root runs: the demo, the tool, the examples in C. What the real ones find out by themselves (requirements) is not tried.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
here=$PWD
case $python in /*) ;; */*) python=$PWD/$python ;; *) python=$(command -v "$python") ;; esac
command -v rpmbuild > /dev/null || { echo 'rpm: rpmbuild is not installed (Debian: rpm)' >&2; exit 1; }
say() { printf 'rpm: %s\n' "$*"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root='%{buildroot}'

say 'the source archive'
"$python" -m build --sdist --no-isolation --outdir "$work/dist" . > "$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
version=$(sed -n 's/^Version: *//p' packaging/hardsock.spec)
# Where a version is a developer's, RPM writes it in its own way.
own=$(basename "$work"/dist/*.tar.gz .tar.gz)
mkdir -p "$work/rpmbuild/SOURCES" "$work/archive"
tar -xzf "$work/dist/$own.tar.gz" -C "$work/archive"
mv "$work/archive/$own" "$work/archive/hardsock-$version"
tar -czf "$work/rpmbuild/SOURCES/hardsock-$version.tar.gz" -C "$work/archive" "hardsock-$version"

site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib", "posix_prefix", {"base": "/usr", "platbase": "/usr"}))')
cat > "$work/macros" << END
%python3 $python
%_unitdir /usr/lib/systemd/system
%pyproject_files $work/files
%pyproject_buildrequires %{nil}
%pyproject_wheel $python -m pip wheel -q --no-deps --no-build-isolation -w _wheels .
%pyproject_install $python -m pip install -q --no-deps --no-index --no-compile --ignore-installed --root $root --prefix /usr _wheels/*.whl
%pyproject_save_files(l) find $root$site -mindepth 1 -maxdepth 1 -printf '$site/%%f\\\\n' > $work/files
%pyproject_check_import(e:) %{py3_test_envvars} $python -P -c 'import hardsock, hardsock.aio'
%py3_test_envvars PYTHONPATH=$root$site
END

say 'rpmbuild'
# Python itself is not installed by RPM here, and neither is any other requirement.
rpmbuild --nodeps --quiet -bb --load="$work/macros" --define "_topdir $work/rpmbuild" \
    --define "debug_package %{nil}" packaging/hardsock.spec > "$work/log" 2>&1 || { tail -40 "$work/log"; exit 1; }
for package in "$work"/rpmbuild/RPMS/*/*.rpm; do
    say "$(basename "$package"): $(rpm -qlp "$package" | wc -l) files"
done

say 'install into an empty root, and run from there'
# rpm itself says whether two packages have the same file. Debian's asks to be told that it is meant.
force=
if rpm --help | grep -q -e --force-debian; then force=--force-debian; fi
rpm --root "$work/root" $force --nodeps --noscripts -i "$work"/rpmbuild/RPMS/*/*.rpm
libraries=$work/root$(rpm --eval '%{_libdir}')
cd "$work" # not the checkout: what is installed is tried
try() {
    "$@" > "$work/log" 2>&1 || { cat "$work/log"; say "failed: $*"; exit 1; }
    tail -1 "$work/log"
}
export PYTHONPATH="$work/root$site"
try "$python" -P -c 'import hardsock as hs; print(hs.__file__, "on", hs.openssl_version())'
case $(cat "$work/log") in "$work/root"/*) ;; *) say 'that is not what was installed'; exit 1 ;; esac
try "$python" -P -m hardsock demo --plain --patience 10
try "$work/root$(rpm --eval '%{_sbindir}')/hardsock-tune" --version
export PKG_CONFIG_PATH="$libraries/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$work/root" LD_LIBRARY_PATH="$libraries"
AUTOPKGTEST_TMP=$work/root/tmp
mkdir "$AUTOPKGTEST_TMP"
export AUTOPKGTEST_TMP
try sh "$here/debian/tests/library"
say ok
