#!/bin/busybox sh
# shellcheck shell=dash
# guest.sh: PID 1 of a virtual machine that is made for one question: what does this kernel say?
#
# Everything here may be written, since this kernel dies with the machine. What it finds goes to the
# console, one record a line, fields separated by a bar; boot.py reads them.
#
#   KEY|PLACE|path|mode|value       PLACE: first (namespace), modules (first, modules loaded), child
#   RANGE|path|value|ok, became VALUE or refused
#   COPY|written|changed|value      writing one key changed another
#   OUTPUT|name|text and STATUS|name|code    of a run of hardsock-tune
#   SAME|profile, or DIFFERS|profile|line    the whole tree before apply and after revert
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /etc /bin
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /run
mount -t tmpfs tmp /tmp
ip link set lo up
tune=/hardsock-tune

# The boot leaves the cursor in the middle of a line.
echo
echo "KERNEL|$(uname -r)|$(awk '/MemTotal/{print $2}' /proc/meminfo)"

list() { # what: every setting as KEY records; actions, secrets and what never ends are left out
    find /proc/sys -type f ! -path '*/flush' ! -name stable_secret ! -name tcp_fastopen_key \
        ! -name drop_caches ! -name compact_memory ! -name '*_reset' ! -path '*/binfmt_misc/*' \
        ! -path '/proc/sys/dev/*' ! -path '*/random/*' ! -path '*/debug/*' |
        while read -r file; do
            mode=$(stat -c %a "$file")
            value=-
            case $mode in 2*) ;; *) value=$(head -c 400 "$file" 2>/dev/null | tr '\n\t|' '   ') ;; esac
            echo "KEY|$1|${file#/proc/sys/}|$mode|$value"
        done
}
list first
if [ -s /modules ]; then
    while read -r module; do insmod "/m/$module" 2>&1; done </modules
    list modules
fi
# A child of the first namespace, as a container has it.
cat >/tmp/child <<'CHILD'
ip link set lo up
find /proc/sys/net -type f ! -path '*/flush' ! -name stable_secret ! -name tcp_fastopen_key |
    while read -r file; do
        echo "KEY|child|${file#/proc/sys/}|$(stat -c %a "$file")|$(head -c 400 "$file" 2>/dev/null | tr '\n\t|' '   ')"
    done
CHILD
unshare -n sh /tmp/child

# ---- ranges: what it takes. Only plain numbers, one interface, and nothing that ends the machine.
probe() { # file
    old=$(cat "$1" 2>/dev/null) || return
    case $old in '' | *[!0-9-]*) return ;; esac
    for value in -2147483649 -2147483648 -1 0 1 2 3 4 5 255 256 65535 65536 2147483647 2147483648 4294967296; do
        if echo "$value" 2>/dev/null >"$1"; then
            got=$(cat "$1")
            if [ "$got" = "$value" ]; then said=ok; else said="became $got"; fi
        else
            said=refused
        fi
        echo "RANGE|${1#/proc/sys/}|$value|$said"
        echo "$old" 2>/dev/null >"$1"
    done
}
find /proc/sys/net -type f -perm -200 ! -path '*/flush' ! -name stable_secret ! -path '*/lo/*' \
    ! -path '*/all/*' |
    while read -r file; do probe "$file"; done 2>/dev/null

# ---- what writing one key does to others: with two interfaces, and one made afterwards.
ip link add probe0 type dummy 2>/dev/null || ip link add probe0 type veth peer name probe1 2>/dev/null || echo 'NOTE|no second interface'
for family in ipv4 ipv6; do
    for file in /proc/sys/net/"$family"/conf/all/*; do
        name=${file##*/}
        old=$(cat "$file" 2>/dev/null)
        case $old in 0) new=1 ;; 1) new=0 ;; *) continue ;; esac
        for where in all default; do
            target=/proc/sys/net/$family/conf/$where/$name
            was=$(cat "$target" 2>/dev/null)
            grep -sH '' /proc/sys/net/"$family"/conf/*/"$name" /proc/sys/net/ipv4/ip_forward >/tmp/before
            echo "$new" 2>/dev/null >"$target" || continue
            grep -sH '' /proc/sys/net/"$family"/conf/*/"$name" /proc/sys/net/ipv4/ip_forward >/tmp/after
            diff /tmp/before /tmp/after | sed -n 's,^+/proc/sys/\([^:]*\):\(.*\)$,\1 \2,p' |
                while read -r changed value; do
                    echo "COPY|${target#/proc/sys/}|$changed|$value"
                done
            echo "$was" 2>/dev/null >"$target"
        done
    done
done

# ---- the tool: every profile applied and reverted, and the whole tree compared.
run() { # name, command ...
    name=$1
    shift
    "$@" >/tmp/out 2>&1
    code=$?
    sed "s,^,OUTPUT|$name|," /tmp/out
    echo "STATUS|$name|$code"
}
snapshot() {
    find /proc/sys/net /proc/sys/fs /proc/sys/vm /proc/sys/kernel -type f -perm -200 ! -path '*/flush' \
        ! -name '*_count' ! -name stable_secret ! -name tcp_fastopen_key ! -name netdev_rss_key \
        ! -name drop_caches ! -name compact_memory ! -name ns_last_pid ! -path '*/random/*' \
        2>/dev/null | sort | xargs grep -sH ''
}
same() { # name
    snapshot >/tmp/after
    if cmp -s /tmp/before /tmp/after; then
        echo "SAME|$1"
    else
        diff /tmp/before /tmp/after | sed -n "s,^[+-][^+-],DIFFERS|$1|&,p"
    fi
}
run version $tune --version
run 'check all' $tune check all -f json
# shellcheck disable=SC2046  # a list of words
run explain $tune explain -f json $(cat /keys)
while read -r profile; do
    snapshot >/tmp/before
    run "apply $profile" $tune apply "$profile"
    run "check $profile" $tune check -q "$profile"
    run "revert $profile" $tune revert --all
    same "$profile"
done </profiles
run 'child check' unshare -n $tune check -f json baseline
run 'child explain' unshare -n $tune explain -f json net.core.rmem_max net.core.somaxconn net.ipv4.tcp_rmem net.core.netdev_max_backlog
snapshot >/tmp/before
run 'child apply' unshare -n sh -c "$tune apply container; $tune revert --all"
same 'container in a child'
echo "DONE|$(cut -d' ' -f1 /proc/uptime)"
poweroff -f
