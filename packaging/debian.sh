#!/bin/sh
# debian.sh: the Debian packages of this checkout, built in a throw-away tree of Debian sid, judged by
# lintian, installed there and tried by their own tests (debian/tests, by autopkgtest). `make debian`; needs root.
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

say 'install, and run the packages'"'"' own tests'
# It makes an archive of the packages for apt, and installs for each test what that one asks for.
apt-get -y -qq --no-install-recommends install autopkgtest >/dev/null
state=0
autopkgtest --no-built-binaries --summary-file="$build/summary" \
    ./*.deb "$build/hardsock/" -- null >"$build/log" 2>&1 || state=$?
if [ $state != 0 ]; then
    tail -60 "$build/log"
    say "autopkgtest ended with $state"
    exit 1
fi
cat "$build/summary"
say ok
