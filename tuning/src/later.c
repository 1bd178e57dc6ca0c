/* later.c: see later.h.
 *
 * networkd and NetworkManager set keys of each interface that they manage: of the first what its
 * files ask for, of the second what it does to every interface. What a runtime does is from its own
 * documentation; it is told where the runtime is installed, since it may start at any time.
 */
#include "later.h"

#include "foreign.h"
#include "key.h"
#include "mem.h"
#include "root.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void
add(struct setters *all, const char *by, const char *where, const char *path, const char *value,
    char bound)
{
    all->items = mem_grow(all->items, all->n, &all->capacity, sizeof(*all->items));
    all->items[all->n++] = (struct setter){by, where, path, value, bound};
}

static void
add_lines(struct setters *all, const char *by, const struct conf *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->lines[i].value != NULL)
            add(all, by, mem_format("%s:%zu", c->lines[i].file, c->lines[i].number),
                c->lines[i].path, c->lines[i].value, c->lines[i].bound);
}

/* "NAME=VALUE" of a file that a shell reads. */
static const char *
shell_value(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *at = text; at != NULL && (at = strstr(at, name)) != NULL; at += len)
        if ((at == text || at[-1] == '\n') && at[len] == '=') {
            const char *value = at + len + 1;

            value += *value == '"' || *value == '\'';
            return mem_copy(value, strcspn(value, "\"'\n \t"));
        }
    return "";
}

/* Its own file of settings, each time that the firewall starts. */
static void
of_ufw(const struct sys *s, struct setters *all)
{
    size_t len;
    const char *conf = sys_file(s, "/etc/ufw/ufw.conf", CONF_MAX, &len);
    const char *defaults = sys_file(s, "/etc/default/ufw", CONF_MAX, &len);
    const char *file = defaults == NULL ? "" : shell_value(defaults, "IPT_SYSCTL");
    char *text = *file == '/' ? sys_file(s, file, CONF_MAX, &len) : NULL;
    struct conf c = {0};

    if (conf == NULL || strcmp(shell_value(conf, "ENABLED"), "yes") != 0 || text == NULL)
        return;
    conf_read(file, text, len, false, &c);
    add_lines(all, "ufw", &c);
}

static void
of_tuned(const struct sys *s, struct setters *all)
{
    static const char active[] = "/etc/tuned/active_profile";
    static const char *const dirs[] = {"/etc/tuned/profiles", "/etc/tuned",
                                       "/usr/lib/tuned/profiles", "/usr/lib/tuned"};
    size_t len;
    char *names = sys_file(s, active, 4096, &len);

    for (char *save = NULL, *name = names == NULL ? NULL : strtok_r(names, " \t\n", &save);
         name != NULL; name = strtok_r(NULL, " \t\n", &save)) {
        const char *path = NULL;
        char *text = NULL;
        struct conf c = {.quiet = true};

        for (size_t i = 0; text == NULL && i < sizeof(dirs) / sizeof(dirs[0]); i++) {
            path = mem_format("%s/%s/tuned.conf", dirs[i], name);
            text = strchr(name, '/') == NULL ? sys_file(s, path, CONF_MAX, &len) : NULL;
        }
        if (text == NULL) {
            say("%s: profile %.80s of tuned is not found: what it sets is not known", active, name);
            continue;
        }
        tuned_read(s->root, path, text, &c);
        add_lines(all, "tuned", &c);
    }
}

/* A directive of networkd, the key of its interface, and the values that are words. */
static const struct {
    const char *name, *dir, *leaf;
    bool words; /* no, strict and loose */
} directives[] = {
    {"IPForward", "ipv4", "forwarding", false},
    {"IPv4Forwarding", "ipv4", "forwarding", false},
    {"IPv6Forwarding", "ipv6", "forwarding", false},
    {"IPv4ReversePathFilter", "ipv4", "rp_filter", true},
    {"IPv4AcceptLocal", "ipv4", "accept_local", false},
    {"IPv4RouteLocalnet", "ipv4", "route_localnet", false},
    {"IPv4ProxyARP", "ipv4", "proxy_arp", false},
    {"IPv6ProxyNDP", "ipv6", "proxy_ndp", false},
    {"IPv6PrivacyExtensions", "ipv6", "use_tempaddr", false},
    {"IPv6HopLimit", "ipv6", "hop_limit", false},
    {"IPv6DuplicateAddressDetection", "ipv6", "dad_transmits", false},
};

static const char *
value_of(const char *word, bool words)
{
    if (words && strcmp(word, "loose") == 0)
        return "2";
    if (strcmp(word, "yes") == 0 || strcmp(word, "true") == 0 || strcmp(word, "strict") == 0 ||
        strcmp(word, "on") == 0)
        return "1";
    if (strcmp(word, "no") == 0 || strcmp(word, "false") == 0 || strcmp(word, "off") == 0)
        return "0";
    return word[strspn(word, "0123456789")] == '\0' ? word : NULL;
}

static void
take_directive(struct setters *all, const char *where, const char *name, const char *value,
               const char *interfaces)
{
    for (size_t i = 0; i < sizeof(directives) / sizeof(directives[0]); i++) {
        if (strcmp(directives[i].name, name) != 0)
            continue;
        for (const char *rest = interfaces; *(rest += strspn(rest, " \t")) != '\0';) {
            const char *one = mem_copy(rest, strcspn(rest, " \t"));

            rest += strlen(one);
            add(all, "systemd-networkd", where,
                mem_format("net/%s/conf/%s/%s", directives[i].dir,
                           strpbrk(one, "!/") != NULL ? "*" : one, directives[i].leaf),
                value_of(value, directives[i].words), '\0');
        }
    }
}

static void
of_network_file(struct setters *all, const char *file, const char *text)
{
    const char *section = "", *interfaces = "*";

    for (size_t number = 1; *text != '\0'; number++) {
        size_t len = strcspn(text, "\n");
        const char *line = conf_trim(text, len), *equals = strchr(line, '=');

        if (*line == '[') {
            section = line;
        } else if (equals != NULL && *line != '#' && *line != ';') {
            const char *name = conf_trim(line, (size_t)(equals - line));
            const char *value = conf_trim(equals + 1, strlen(equals + 1));

            if (strcmp(section, "[Match]") == 0 && strcmp(name, "Name") == 0)
                interfaces = value;
            else if (strcmp(section, "[Network]") == 0)
                take_directive(all, mem_format("%s:%zu", file, number), name, value, interfaces);
        }
        text += len + (text[len] == '\n');
    }
}

static void
of_networkd(const struct sys *s, struct setters *all)
{
    static const char *const dirs[] = {"/etc/systemd/network", "/run/systemd/network",
                                       "/usr/lib/systemd/network"};

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        DIR *d = root_opendir(s->root, dirs[i]);

        /* cppcheck-suppress readdirCalled; there is one thread */
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            size_t n = strlen(e->d_name), len;
            const char *path = mem_format("%s/%s", dirs[i], e->d_name);
            char *text;

            if (n > 8 && strcmp(e->d_name + n - 8, ".network") == 0 &&
                (text = sys_file(s, path, CONF_MAX, &len)) != NULL)
                of_network_file(all, path, text);
        }
        if (d != NULL)
            (void)closedir(d);
    }
}

/* Programs that set keys by themselves, and the file that tells that they are there. */
static const struct {
    const char *sign, *by, *path, *value;
} programs[] = {
    {"/usr/sbin/NetworkManager", "NetworkManager", "net/ipv6/conf/*/accept_ra", "0"},
    {"/usr/sbin/NetworkManager", "NetworkManager", "net/ipv6/conf/*/use_tempaddr", NULL},
    {"/usr/sbin/NetworkManager", "NetworkManager", "net/ipv6/conf/*/disable_ipv6", NULL},
    {"/usr/bin/dockerd", "Docker", "net/ipv4/ip_forward", "1"},
    {"/usr/bin/dockerd", "Docker", "net/bridge/bridge-nf-call-iptables", "1"},
    {"/usr/libexec/podman/netavark", "Podman (netavark)", "net/ipv4/ip_forward", "1"},
    {"/usr/lib/podman/netavark", "Podman (netavark)", "net/ipv4/ip_forward", "1"},
    {"/opt/cni/bin/bridge", "CNI bridge", "net/ipv4/ip_forward", "1"},
    {"/usr/sbin/libvirtd", "libvirt", "net/ipv4/ip_forward", "1"},
    {"/usr/bin/kubelet", "kubelet", "vm/overcommit_memory", "1"},
    {"/usr/bin/kubelet", "kubelet", "vm/panic_on_oom", "0"},
    {"/usr/bin/kubelet", "kubelet", "kernel/panic", "10"},
    {"/usr/bin/kubelet", "kubelet", "kernel/panic_on_oops", "1"},
    {"/usr/bin/kubelet", "kube-proxy", "net/ipv4/conf/all/route_localnet", "1"},
    {"/usr/bin/kubelet", "kube-proxy", "net/netfilter/nf_conntrack_max", NULL},
    {"/usr/bin/kubelet", "kube-proxy", "net/netfilter/nf_conntrack_tcp_timeout_established",
     "86400"},
    {"/usr/bin/kubelet", "kube-proxy", "net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"},
};

static bool
is_there(const struct sys *s, const char *path)
{
    int fd = root_open(s->root, path, O_PATH);

    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

static void
of_programs(const struct sys *s, struct setters *all)
{
    const char *sign = "";
    bool there = false;

    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        if (strcmp(sign, programs[i].sign) != 0)
            there = is_there(s, programs[i].sign);
        sign = programs[i].sign;
        if (there)
            add(all, programs[i].by, sign, programs[i].path, programs[i].value, '\0');
    }
}

/* "net.core.somaxconn = 1" or "sysctl -w net.core.somaxconn=1" somewhere in a line. */
static void
take_cloud_line(struct setters *all, const char *where, const char *line)
{
    const char *at = strstr(line, "net."), *equals;
    char path[KEY_MAX];
    const char *name, *value, *why;

    at = at != NULL ? at : strstr(line, "vm.");
    at = at != NULL ? at : strstr(line, "kernel.");
    at = at != NULL ? at : strstr(line, "fs.");
    if (at == NULL || (equals = strchr(at, '=')) == NULL)
        return;
    name = conf_trim(at, (size_t)(equals - at));
    equals++;
    equals += strspn(equals, " \t\"'");
    value = conf_trim(equals, strcspn(equals, "\"'\\],;|&"));
    if (strpbrk(name, " \t\"'") == NULL && key_parse(name, strlen(name), path, &why) &&
        key_allowed(path, &why))
        add(all, "cloud-init", where, mem_dup(path), value, '\0');
}

static void
of_cloud_file(const struct sys *s, const char *path, struct setters *all)
{
    size_t len, number = 1;
    char *text = sys_file(s, path, CONF_MAX, &len);

    for (; text != NULL && *text != '\0'; number++) {
        size_t n = strcspn(text, "\n");
        const char *line = conf_trim(text, n);

        if (*line != '#')
            take_cloud_line(all, mem_format("%s:%zu", path, number), line);
        text += n + (text[n] == '\n');
    }
}

/* What the first boot of an image runs, and later ones may. */
static void
of_cloud_init(const struct sys *s, struct setters *all)
{
    static const char dir[] = "/etc/cloud/cloud.cfg.d";
    DIR *d = root_opendir(s->root, dir);

    of_cloud_file(s, "/etc/cloud/cloud.cfg", all);
    /* cppcheck-suppress readdirCalled; there is one thread */
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name);

        if (n > 4 && strcmp(e->d_name + n - 4, ".cfg") == 0)
            of_cloud_file(s, mem_format("%s/%s", dir, e->d_name), all);
    }
    if (d != NULL)
        (void)closedir(d);
    of_cloud_file(s, "/var/lib/cloud/instance/user-data.txt", all);
}

void
later_find(const struct sys *s, struct setters *ret)
{
    struct setters all = {0};

    of_ufw(s, &all);
    of_networkd(s, &all);
    of_tuned(s, &all);
    of_cloud_init(s, &all);
    of_programs(s, &all);
    *ret = all;
}
