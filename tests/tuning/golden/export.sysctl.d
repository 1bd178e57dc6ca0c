# hardsock-tune, profile high-churn-client, HASH
# Each connection to one destination needs its own local port, and keeps it for 60 s after it closed. 64,512 ports instead of 28,232 allow 1,075 new connections a second to one destination instead of 470.
net.ipv4.ip_local_port_range = 1024 65535
# net.ipv4.ip_local_reserved_ports: left out: depends on what listens on the machine
# An outgoing connection may take over a port whose last connection to the same destination has been in TIME_WAIT for a second. Only outgoing connections; a server gains nothing.
net.ipv4.tcp_tw_reuse = 1
# tcp_tw_reuse needs it; without it connect() fails with EADDRNOTAVAIL all the same.
net.ipv4.tcp_timestamps = 1
# Listeners that ask for more are capped silently, and a burst of connections is then dropped.
net.core.somaxconn = 4096
# Without cookies a small flood of SYNs keeps everyone else out.
net.ipv4.tcp_syncookies = 1
# Without it one lost packet makes a whole window travel again.
net.ipv4.tcp_sack = 1
# Without it no connection has more than 64 KiB in flight.
net.ipv4.tcp_window_scaling = 1
# Receive buffers grow with the connection instead of being too small or too large for all.
net.ipv4.tcp_moderate_rcvbuf = 1
# A full accept queue is usually a short peak; a client that is left to try again survives it.
net.ipv4.tcp_abort_on_overflow = 0
# Fewer means that TIME_WAIT, a protection, is skipped under load.
net.ipv4.tcp_max_tw_buckets = 4096
# RFC 1122 wants at least 100 s before a connection with unacknowledged data is given up.
net.ipv4.tcp_retries2 = 8
# Beyond this, sockets that still deliver their last data are reset.
net.ipv4.tcp_max_orphans = 4096
# net.ipv4.tcp_tw_recycle: left out: must not be set
