# hardsock-tune, profile high-churn-client, HASH
# net.ipv4.ip_local_port_range: left out: safe only with net.ipv4.ip_local_reserved_ports, which depends on what listens on the machine: use apply and persist there
# net.ipv4.ip_local_reserved_ports: left out: depends on what listens on the machine
# note: net.ipv4.tcp_tw_reuse = 1: 1 relies on the timestamps of both ends, does nothing for a server that accepts, and a NAT that rewrites timestamps lets old packets pass for new ones; the kernel's documentation asks for an expert's advice first [doubtful]; the profile says of its risk: Relies on timestamps of both sides. A peer that drops or rewrites them can mistake old packets for new ones.
# An outgoing connection may take over a port whose last connection to the same destination has been in TIME_WAIT for a second. Only outgoing connections; a server gains nothing.
net.ipv4.tcp_tw_reuse = 1
# net.ipv4.tcp_timestamps: left out: 1 to 2: a fixed value could lower or raise a machine that is as wanted; apply and persist there work it out
# net.core.somaxconn: left out: at least 4096: a fixed value could lower or raise a machine that is as wanted; apply and persist there work it out
# net.ipv4.tcp_syncookies: left out: 1 to 2: a fixed value could lower or raise a machine that is as wanted; apply and persist there work it out
# Without it one lost packet makes a whole window travel again.
net.ipv4.tcp_sack = 1
# Without it no connection has more than 64 KiB in flight.
net.ipv4.tcp_window_scaling = 1
# Receive buffers grow with the connection instead of being too small or too large for all.
net.ipv4.tcp_moderate_rcvbuf = 1
# A full accept queue is usually a short peak; a client that is left to try again survives it.
net.ipv4.tcp_abort_on_overflow = 0
# net.ipv4.tcp_max_tw_buckets: left out: at least 2048: a fixed value could lower or raise a machine that is as wanted; apply and persist there work it out
# net.ipv4.tcp_retries2: left out: at least 8: a fixed value could lower or raise a machine that is as wanted; apply and persist there work it out
# net.ipv4.tcp_max_orphans: left out: at least 2048: a fixed value could lower or raise a machine that is as wanted; apply and persist there work it out
# net.ipv4.tcp_tw_recycle: left out: must not be set
