#!/bin/sh
# deb.sh VERSION OUT: a Debian package of what `make install` puts in place, in the directory OUT.
#
# Without debhelper, so that it works wherever dpkg-deb does. The dependencies are those that
# dpkg-shlibdeps finds in the program; the times of files are that of the last commit, or in an
# unpacked archive that of the file with the version, so that two builds give one package.
set -eu
version=$1 out=$2
here=$(cd "$(dirname "$0")/.." && pwd)
arch=$(dpkg --print-architecture)
committed() { git -C "$here" log -1 --format=%ct 2>/dev/null || stat -c %Y "$here/../pyproject.toml"; }
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(committed)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
umask 022
mkdir "$root"

make -s -C "$here" install "DESTDIR=$root" PREFIX=/usr UNITDIR=/usr/lib/systemd/system
strip --remove-section=.comment --remove-section=.note "$root/usr/sbin/hardsock-tune"
gzip -9n "$root/usr/share/man/man8/hardsock-tune.8"
mkdir -p "$root/usr/share/zsh/vendor-completions" "$root/etc/hardsock/profiles"
mv "$root/usr/share/zsh/site-functions/_hardsock-tune" "$root/usr/share/zsh/vendor-completions/"
rmdir "$root/usr/share/zsh/site-functions"

doc=$root/usr/share/doc/hardsock-tune
mkdir -p "$doc"
{
    printf 'hardsock-tune (%s) unstable; urgency=medium\n\n' "$version"
    printf '  * See CHANGELOG.md of the source.\n\n'
    printf ' -- The hardsock authors <maintainers@hardsock.example>  %s\n' \
        "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n > "$doc/changelog.gz"
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n'
    printf 'Upstream-Name: hardsock\n\nFiles: *\nCopyright: 2026 The hardsock authors\nLicense: MIT\n\n'
    printf 'License: MIT\n'
    sed -n '/^Permission/,$s/^/ /p' "$here/../LICENSE" | sed 's/^ $/ ./'
} > "$doc/copyright"

mkdir -p "$work/debian" "$root/DEBIAN"
printf 'Source: hardsock-tune\n\nPackage: hardsock-tune\nArchitecture: any\n' > "$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/sbin/hardsock-tune | sed -n 's/^shlibs:Depends=//p')
cat > "$root/DEBIAN/control" <<END
Package: hardsock-tune
Version: $version
Architecture: $arch
Maintainer: The hardsock authors <maintainers@hardsock.example>
Installed-Size: $(du -ks "$root" | cut -f1)
Depends: $depends
Section: admin
Priority: optional
Description: check, explain, apply and revert kernel network settings
 Compares the network settings of the kernel with profiles, which say for each
 setting what is wanted, why, and at what risk. Applies them in one transaction
 that can be taken back. Without being asked it only reads.
 .
 A timer for regular checks is contained and not enabled.
END
(cd "$root" && find usr lib -type f -print0 | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/hardsock-tune_${version}_$arch.deb"
