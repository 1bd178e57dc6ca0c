#!/bin/busybox sh
# shellcheck shell=dash disable=SC2086  # $all is a list of folders
# guest.sh: PID 1 of a virtual machine that is made for one question: what does this kernel say?
#
# Everything here may be written, since this kernel dies with the machine. What it finds goes to the
# console, one record a line, fields separated by a bar; boot.py reads them.
#
#   KEY|PLACE|path|mode|value       PLACE: first (namespace), modules (first, modules loaded), child
#   RANGE|path|value|ok, became VALUE or refused
#   COPY|written|changed|value      writing one key changed another
#   RULE|path|all|own|on or off     what an interface does with conf.all and conf.INTERFACE so
#   OUTPUT|name|text and STATUS|name|code    of a run of hardsock-tune
#   SAME|profile|lines, or DIFFERS|profile|line    the whole tree before apply and after revert
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

# Not a process for each file: there are thousands, and this machine is an emulated one.
cat >/tmp/records <<'RECORDS'
NR == FNR { mode[$2] = $1; files[n++] = $2; next }
{
    at = index($0, ":")
    file = substr($0, 1, at - 1)
    text[file] = text[file] " " substr($0, at + 1, 400)
}
END {
    for (i = 0; i < n; i++)
        print "KEY|" place "|" substr(files[i], 11) "|" mode[files[i]] "|" (mode[files[i]] ~ /^2/ ? "-" : substr(text[files[i]], 2))
}
RECORDS
cat >/tmp/list <<'LIST'
# $1: place, $2: folder. Actions, secrets and what never ends are left out. Not by xargs, whose version
# in this busybox mixes up names where there are many.
files() {
    find "$folder" -type f ! -path '*/flush' ! -name stable_secret ! -name tcp_fastopen_key \
        ! -name drop_caches ! -name compact_memory ! -name '*_reset' ! -path '*/binfmt_misc/*' \
        ! -path '/proc/sys/dev/*' ! -path '*/random/*' ! -path '*/debug/*' "$@"
}
folder=$2
files -exec stat -c '%a %n' {} + >"/tmp/modes.$1"
files -perm -400 -exec grep -sH '' {} + >"/tmp/values.$1"
awk -v place="$1" -f /tmp/records "/tmp/modes.$1" "/tmp/values.$1"
LIST
list() { sh /tmp/list "$1" /proc/sys; }
list first
if [ -s /modules ]; then
    while read -r module; do insmod "/m/$module" 2>&1; done </modules
    list modules
fi
# A child of the first namespace, as a container has it.
unshare -n sh -c 'ip link set lo up; sh /tmp/list child /proc/sys/net'

# ---- ranges: what it takes. Only plain numbers, one interface, and nothing that ends the machine.
probe() { # file
    old=$(cat "$1" 2>/dev/null) || return
    case $old in '' | *[!0-9-]*) return ;; esac
    for new in -2147483649 -2147483648 -1 0 1 2 3 4 5 255 256 65535 65536 2147483647 2147483648 4294967296; do
        if echo "$new" 2>/dev/null >"$1"; then
            got=$(cat "$1")
            if [ "$got" = "$new" ]; then said=ok; else said="became $got"; fi
        else
            said=refused
        fi
        echo "RANGE|${1#/proc/sys/}|$new|$said"
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

# ---- conf.all and conf.INTERFACE together, by what the interface then does to a neighbour.
c4=/proc/sys/net/ipv4/conf
unshare -n sleep 100000 &
peer=$!
beside() { nsenter -t $peer -n "$@"; }
# The name of the neighbour's end is the kernel's choice; here it is what was not there before.
for known in /sys/class/net/*; do echo "${known##*/}"; done >/run/known
ip link add near type veth 2>/dev/null
far=
for made in /sys/class/net/*; do
    case ${made##*/} in near) ;; *) grep -qx "${made##*/}" /run/known || far=${made##*/} ;; esac
done
if [ -n "$far" ]; then
    while ! ip link set "$far" netns $peer 2>/dev/null; do usleep 100000; done
    ip addr add 10.77.0.1/24 dev near
    ip addr add 10.88.0.1/32 dev lo
    ip addr add 10.88.0.2/32 dev lo
    ip addr add 10.99.0.1/24 dev probe0
    ip link set near up
    ip link set probe0 up
    beside ip link set lo up
    beside ip link set "$far" up
    beside ip addr add 10.77.0.2/24 dev "$far"
    beside ip addr add 10.99.0.7/32 dev "$far"
    beside ip addr add 10.88.0.1/32 dev "$far"
    beside ping -c 5 -W 1 10.77.0.1 >/dev/null || echo 'NOTE|no way to the neighbour'
else
    echo 'NOTE|no neighbour'
fi
answers() { beside arping -q -c 1 -w 1 -I "$far" "$1" >/dev/null 2>&1; }
arrives() { # source: whether a ping with it is taken
    pings=$(awk '/^Icmp:/ && $2 ~ /[0-9]/ {print $10}' /proc/net/snmp)
    beside ping -c 1 -W 1 -I "$1" 10.77.0.1 >/dev/null 2>&1
    [ "$pings" != "$(awk '/^Icmp:/ && $2 ~ /[0-9]/ {print $10}' /proc/net/snmp)" ]
}
keeps() { # whether a neighbour is forgotten when the cable is out
    beside ip link set "$far" up
    ping -c 3 -W 1 10.77.0.2 >/dev/null
    beside ip link set "$far" down
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        grep -q '^10.77.0.2 ' /proc/net/arp || return 1
        usleep 100000
    done
}
is_on() {
    case $1 in
        arp_ignore) ! answers 10.88.0.2 ;;
        proxy_arp) answers 10.99.0.5 ;;
        rp_filter) ! arrives 10.99.0.7 ;;
        accept_local) arrives 10.88.0.1 ;;
        arp_evict_nocarrier) ! keeps ;;
    esac
}
echo 1 >$c4/near/forwarding
echo 0 >/proc/sys/net/ipv4/neigh/near/proxy_delay
for name in arp_ignore proxy_arp rp_filter accept_local arp_evict_nocarrier; do
    if [ -z "$far" ] || [ ! -e $c4/all/$name ]; then continue; fi
    was=$(cat $c4/all/$name)
    case $name in rp_filter) values='0 1 2' ;; *) values='0 1' ;; esac
    for all in $values; do
        for own in $values; do
            echo "$all" >$c4/all/$name
            echo "$own" >$c4/near/$name
            if is_on $name; then said=on; else said=off; fi
            echo "RULE|net/ipv4/conf/*/$name|$all|$own|$said"
        done
    done
    echo "$was" >$c4/all/$name
    echo 0 >$c4/near/$name
done
ip link del near 2>/dev/null
ip link del probe0 2>/dev/null
kill $peer

# ---- the tool: every profile applied and reverted, and the whole tree compared.
cat >/tmp/tool <<'TOOL'
tune=/hardsock-tune
run() { # name, command ...
    name=$1
    shift
    "$@" >/tmp/out 2>&1
    code=$?
    sed "s,^,OUTPUT|$name|," /tmp/out
    echo "STATUS|$name|$code"
}
snapshot() { # folder ...
    find "$@" -type f -perm -200 ! -path '*/flush' \
        ! -name '*_count' ! -name stable_secret ! -name tcp_fastopen_key ! -name netdev_rss_key \
        ! -name drop_caches ! -name compact_memory ! -name ns_last_pid ! -path '*/random/*' \
        -exec grep -sH '' {} + 2>/dev/null | sort
}
same() { # name, before, after
    if cmp -s "$2" "$3"; then
        echo "SAME|$1|$(wc -l <"$3")"
    else
        diff "$2" "$3" | sed -n "s,^[+-][^+-],DIFFERS|$1|&,p"
    fi
}
all='/proc/sys/net /proc/sys/fs /proc/sys/vm /proc/sys/kernel'
TOOL
# shellcheck source=/dev/null
. /tmp/tool
run version $tune --version
run 'check all' $tune check all -f json
# shellcheck disable=SC2046  # a list of words
run explain $tune explain -f json $(cat /keys)
while read -r profile; do
    snapshot $all >/tmp/before
    run "apply $profile" $tune apply "$profile"
    run "check $profile" $tune check -q "$profile"
    run "revert $profile" $tune revert --all
    snapshot $all >/tmp/after
    same "$profile" /tmp/before /tmp/after
done </profiles
run 'child check' unshare -n $tune check -f json baseline
run 'child explain' unshare -n $tune explain -f json net.core.rmem_max net.core.somaxconn net.ipv4.tcp_rmem net.core.netdev_max_backlog
# Its tree is seen from inside alone; from outside it must be as if nothing had been.
cat >/tmp/child <<'CHILD'
. /tmp/tool
ip link set lo up
snapshot /proc/sys/net >/tmp/child.before
run 'child apply container' $tune apply container
run 'child check container' $tune check -q container
run 'child revert container' $tune revert --all
snapshot /proc/sys/net >/tmp/child.after
same 'child container' /tmp/child.before /tmp/child.after
CHILD
snapshot $all >/tmp/before
unshare -n sh /tmp/child
snapshot $all >/tmp/after
same 'container in a child' /tmp/before /tmp/after
echo "DONE|$(cut -d' ' -f1 /proc/uptime)"
poweroff -f
