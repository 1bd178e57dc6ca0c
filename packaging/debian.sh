#!/bin/sh
# debian.sh: the Debian packages of this checkout, built in a throw-away tree of Debian sid, judged by
# lintian, installed there and tried by their own tests (debian/tests). `make debian`; needs root.
#
# What lintian may say and is not mended: the bug number of a first upload, and that the source is native.
set -eu
cd "$(dirname "$0")/.."

if [ "${1-}" != inside ]; then
    exec "${PYTHON:-python3}" tools/distro.py run sid -- sh packaging/debian.sh inside
fi

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
say() { printf 'debian: %s\n' "$*"; }
say 'what the build needs'
apt-get -qq update
apt-get -y -qq --no-install-recommends install dpkg-dev debhelper lintian fakeroot >/dev/null
apt-get -y -qq --no-install-recommends build-dep ./ >/dev/null
here=$PWD
build=$(mktemp -d)
mkdir "$build/hardsock"
tar -c --exclude=./build --exclude=./.venv --exclude=./.git . | tar -x -C "$build/hardsock"
cd "$build/hardsock"

say 'build'
dpkg-buildpackage -us -uc -b -j2 >"$build/log" 2>&1 || { tail -50 "$build/log"; exit 1; }
cd "$build"
ls -l -- *.deb

say 'lintian'
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs \
    --display-info ./*.changes

say 'install, and try'
apt-get -y -qq --no-install-recommends install ./*.deb gcc libc6-dev pkgconf >/dev/null
mkdir "$build/trial"
cd "$build/trial" # not the checkout: what is installed is tried
# A pipe's state is that of its last command: what is tried writes to a file.
try() {
    "$@" >"$build/said" 2>&1 || { cat "$build/said"; say "failed: $*"; exit 1; }
    tail -3 "$build/said"
}
try hardsock demo --plain --patience 10
try sh "$here/debian/tests/library"
try sh "$here/debian/tests/tune"
python3 -c 'import hardsock as hs; print("hardsock", hs.__version__, "on", hs.openssl_version())'
say ok
