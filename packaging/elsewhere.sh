#!/bin/sh
# elsewhere.sh: the core, its C tests and hardsock-tune for a platform that is not this one, by a cross
# compiler, and tried here.
#
#     elsewhere.sh musl       with musl-gcc (Debian's musl-tools); runs as it is; `make check-musl`
#     elsewhere.sh aarch64    with gcc-aarch64-linux-gnu; runs under qemu-user
#
# For musl, OpenSSL, libyaml and libcheck are built from their release archives; for aarch64 they are those of
# Debian (debootstrap, unpacked and never entered). What was made stays in build/elsewhere and is used again. TESTS chooses programs (test_NAME).
# Python is not built: see packaging/README.md.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
platform=${1:-}
case $platform in
musl)
    # The kernel's headers are the system's, after musl's own.
    CC="musl-gcc -idirafter /usr/include -idirafter /usr/include/$(gcc -print-multiarch)"
    HARDSOCK_OPENSSL_TARGET=linux-$(uname -m)
    host=$(uname -m)-linux-musl
    wrap=
    slower=1
    static=-static
    ;;
aarch64)
    sysroot=$root/build/elsewhere/aarch64/sysroot
    CC="aarch64-linux-gnu-gcc --sysroot=$sysroot"
    wrap="qemu-aarch64 -L $sysroot"
    slower=10 # what computes, in an emulator
    ppoll=$(printf '#include <sys/syscall.h>\nSYS_ppoll\n' | cc -E -P - | tail -1)
    static= # glibc's name lookups load what is in the tree
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
for program in ${CC%% *} ${wrap%% *}; do
    command -v "$program" > /dev/null || { echo "elsewhere: $program is not installed" >&2; exit 1; }
done
export CC
python=${PYTHON:-python3}
case $python in /*) ;; */*) python=$root/$python ;; esac
jobs=${JOBS:-2}
work=$root/build/elsewhere/$platform
mkdir -p "$work"
say() { printf 'elsewhere: %s: %s\n' "$platform" "$*"; }

made_of_archives() {
    export HARDSOCK_OPENSSL_TARGET
    say 'OpenSSL and libyaml'
    "$python" packaging/static_libs.py "$work/static"

    if [ ! -e "$work/check/lib/libcheck.a" ]; then
        say 'libcheck'
        PYTHONPATH=packaging "$python" -c '
import pathlib, sys, static_libs
static_libs.fetch("check", {
    "version": "0.15.2",
    "upstream": "https://deb.debian.org/debian/pool/main/c/check/check_0.15.2.orig.tar.gz",
    "debian": "pool/main/c/check/check_0.15.2.orig.tar.gz",
    "sha256": "8451b68ac5d6f3157b24f22eceff575bcf566264f6d78f3852f89d4e08cf42e1",
}, pathlib.Path(sys.argv[1]))' "$work/check.tar.gz"
        rm -rf "$work/check-source"
        mkdir "$work/check-source"
        tar -xzf "$work/check.tar.gz" -C "$work/check-source" --strip-components=1
        (
            cd "$work/check-source"
            [ -x configure ] && [ -e Makefile.in ] || autoreconf -i
            ./configure --host="$host" --prefix="$work/check" --disable-shared --disable-subunit
            make -j"$jobs" -C lib
            make -j"$jobs" -C src
            make -C lib install
            make -C src install
            make install-pcdataDATA
        ) > "$work/check.log" 2>&1 || { tail -30 "$work/check.log"; exit 1; }
    fi
    pkgconfig=$work/check/lib/pkgconfig
    flags=-I$work/static/include
    libraries=-L$work/static/lib
}

made_of_debian() {
    if [ ! -e "$sysroot/usr/include/check.h" ]; then
        say 'a tree of Debian bookworm'
        [ -e "$sysroot/var/cache/apt/archives" ] || debootstrap --foreign --arch=arm64 --variant=minbase \
            --include=libssl-dev,libyaml-dev,check,libsubunit-dev,libc6-dev,linux-libc-dev \
            bookworm "$sysroot" > "$work/debootstrap.log"
        for package in "$sysroot"/var/cache/apt/archives/*.deb; do
            dpkg-deb -x "$package" "$sysroot"
        done
    fi
    # What is there hides the machine's, and what tests put over that one.
    rm -f "$sysroot/etc/resolv.conf" "$sysroot/etc/hosts"
    pkgconfig=$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig
    flags=-DMACHINE_SYS_PPOLL=$ppoll
    libraries=
    PKG_CONFIG_SYSROOT_DIR=$sysroot
    export PKG_CONFIG_SYSROOT_DIR
}

case $platform in
musl) made_of_archives ;;
*) made_of_debian ;;
esac

say 'the core, hardsock-tune and the C tests'
mkdir -p "$work/tree"
tar -c --exclude=./build --exclude=./.venv --exclude=./.git --exclude='*.so' . | tar -x -C "$work/tree"
cd "$work/tree"
export PKG_CONFIG_LIBDIR="$pkgconfig" PKG_CONFIG_PATH=
# Warnings are not errors here: libcs differ in which integers are signed.
set -- "CC=$CC" "CFLAGS=$flags" "LDFLAGS=$static $libraries" WERROR= \
    BUILD_CC=cc VENV=none "TOOLPY=$python" X86= HS_LTO=
programs=$(cd tests/c && for t in ${TESTS:-test_*.c}; do printf 'build/debug/tests/c/%s ' "${t%.c}"; done)
# shellcheck disable=SC2086 # they are words
make -j"$jobs" "$@" $programs
make -j"$jobs" "$@" tune

say 'run'
$wrap build/tune/release/hardsock-tune --version
# shellcheck disable=SC2086
CK_DEFAULT_TIMEOUT=60 CK_TIMEOUT_MULTIPLIER=$slower \
    "$python" tools/run_ctests.py --jobs "$jobs" --limit $((300 * slower)) ${wrap:+--wrap "$wrap"} $programs
say ok
