#!/usr/bin/env bash
# Prove that ./bootstrap works on a bare machine: a fresh Debian 12 tree with neither compiler nor
# make in it. There it runs `./bootstrap demo`, then `./bootstrap test`, both as root; then both
# again as a plain user and without any network.
#
# usage: tools/prove_bootstrap.sh [--keep] [DIR]
#
# Needs root and debootstrap. Package sources, trusted keys and pip's configuration are those of
# this machine. Only the tree and its mounts are touched, and both are gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=
if [ "${1:-}" = --keep ]; then
    keep=1
    shift
fi
tree=${1:-$(mktemp -d)}
user=builder

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'prove_bootstrap: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die 'needs root'
command -v debootstrap >/dev/null || die 'needs debootstrap: apt install debootstrap'

cleanup() {
    # Children of the tree first. Without -l a busy mount would be kept, and then removed through.
    for mount in dev/shm dev/pts dev proc; do
        if mountpoint -q "$tree/$mount"; then umount "$tree/$mount" || umount -l "$tree/$mount"; fi
    done
    if grep -q " $tree/" /proc/self/mounts; then
        echo "prove_bootstrap: mounts are left below $tree; not removing it" >&2
    elif [ -z "$keep" ]; then
        rm -rf --one-file-system "$tree"
    else
        echo "kept: $tree"
    fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The first package source of this machine, in either of apt's formats.
mirror=$(
    {
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null
        sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) bookworm .*/\2/p' \
            /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
    } | head -n 1
) || true
[ -n "$mirror" ] || die 'this machine names no package source'

say 'a bare Debian 12'
if [ ! -e "$tree/etc/debian_version" ]; then
    debootstrap --variant=minbase --include=ca-certificates bookworm "$tree" "$mirror" \
        >"$tree.log" 2>&1 || { tail -n 20 "$tree.log" >&2; die 'debootstrap failed'; }
    rm -f "$tree.log"
fi
for tool in cc make python3 pkg-config; do
    if chroot "$tree" sh -c "command -v $tool" >/dev/null; then die "$tool is there already"; fi
done

# How this machine reaches packages. Not /etc/apt/auth.conf.d: no secret belongs in a scratch tree.
chmod 755 "$tree" # mktemp made it private, and it becomes the root of a plain user.
mkdir -p "$tree/etc/apt/apt.conf.d" "$tree/etc/apt/sources.list.d"
rm -f "$tree/etc/apt/sources.list"
if [ -e /etc/apt/sources.list ]; then cp /etc/apt/sources.list "$tree/etc/apt/"; fi
for file in /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    if [ -e "$file" ]; then cp "$file" "$tree/etc/apt/sources.list.d/"; fi
done
grep -hE '^ *Acquire::' /etc/apt/apt.conf.d/* /etc/apt/apt.conf 2>/dev/null \
    >"$tree/etc/apt/apt.conf.d/90proof" || true
cp -L --remove-destination /etc/resolv.conf /etc/hosts "$tree/etc/"
# Links in the tree point at this machine's files when followed from outside: replace, never write.
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -e $bundle ]; then cp -L --remove-destination $bundle "$tree$bundle"; fi
if [ -e /etc/pip.conf ]; then cp /etc/pip.conf "$tree/etc/"; fi

# Variables that steer pip, TLS roots and proxies, and the files that they name.
environment=()
while IFS='=' read -r name value; do
    case $name in
        PIP_* | *_CA_BUNDLE | SSL_CERT_FILE | SSL_CERT_DIR | *_proxy | *_PROXY)
            environment+=("$name=$value")
            if [ -e "$value" ] && [ ! -e "$tree$value" ]; then
                mkdir -p "$tree$(dirname "$value")"
                cp -rL --remove-destination "$value" "$tree$value"
            fi
            ;;
    esac
done < <(env)

mount -t proc proc "$tree/proc"
mkdir -p "$tree/dev"
mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
for device in null zero full random urandom tty; do cp -a "/dev/$device" "$tree/dev/"; done
ln -s /proc/self/fd "$tree/dev/fd"
mkdir "$tree/dev/shm" "$tree/dev/pts"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$tree/dev/pts"
ln -s pts/ptmx "$tree/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$tree/dev/shm"

# A checkout as git would give it, with what is not committed yet.
checkout=/srv/hardsock
mkdir -p "$tree$checkout"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' f; do
    if [ -e "$f" ]; then printf '%s\0' "$f"; fi
done | tar --null -T - -cf - | tar -C "$tree$checkout" -xf -

# A root of its own (pivot_root, not chroot: in a chroot nobody may make user namespaces, which the
# tests need as a plain user) and processes of its own, so that what stays behind is seen.
# shellcheck disable=SC2016  # expanded inside
enter='
    tree=$1; shift
    mount --rbind "$tree" "$tree"; cd "$tree"; mkdir -p .old
    pivot_root . .old; cd /; umount -l /.old; rmdir /.old
    mount -t proc proc /proc
    status=0; "$@" || status=$?
    for process in /proc/[0-9]*; do
        [ "$process" = /proc/1 ] || ! [ -s "$process/cmdline" ] || {
            echo "left running: $(tr "\0" " " <"$process/cmdline")"; status=1; }
    done
    exit $status'

inside() { # command words, as root
    unshare --mount --pid --fork sh -euc "$enter" sh "$tree" \
        env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin CI=true "${environment[@]}" \
        sh -c "cd $checkout && exec \"\$@\"" sh "$@"
}
as_user_offline() {
    unshare --net --mount --pid --fork sh -euc "ip link set lo up; $enter" sh "$tree" \
        setpriv --reuid=$user --regid=$user --clear-groups \
        env -i HOME=/home/$user PATH=/usr/bin:/bin CI=true \
        sh -c "cd $checkout && exec \"\$@\"" sh "$@"
}

nothing_is_left_on() {
    if [ -e "$tree/usr/sbin/policy-rc.d" ]; then die 'policy-rc.d was left behind'; fi
    local name enabled
    for name in nginx redis-server postgresql stunnel4 haproxy; do
        enabled=$(find "$tree/etc/systemd/system" "$tree"/etc/rc[2-5].d \
            \( -path '*.wants/*' -o -name 'S*' \) -name "*$name*" 2>/dev/null)
        if [ -n "$enabled" ]; then die "$name was left enabled: $enabled"; fi
    done
}

say './bootstrap demo, as root'
time inside ./bootstrap demo
nothing_is_left_on
say './bootstrap test, as root'
time inside ./bootstrap test
nothing_is_left_on

chroot "$tree" useradd --create-home --user-group $user
chroot "$tree" chown -R $user:$user "$checkout"
say './bootstrap demo, as a plain user without network'
time as_user_offline ./bootstrap demo
say './bootstrap test, as a plain user without network'
time as_user_offline ./bootstrap test
nothing_is_left_on

say 'proved'
