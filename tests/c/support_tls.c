/* support_tls.c: see support_tls.h.
 *
 * What is made before libcheck forks is never freed: each test has its own copy.
 */
#include "support_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DAY 86400L

struct world world;

/* ---- Certificates -------------------------------------------------------------------------- */

/* Outside of tests libcheck cannot fail one. */
#define MUST(cond) ((cond) ? (void)0 : abort())

/* One RSA key of a size for all: making one takes a quarter of a second, and ten under valgrind.
 * What is made before a test forks, the test has too. */
static EVP_PKEY *
rsa_key(unsigned int bits)
{
    static EVP_PKEY *keys[2];
    EVP_PKEY **key = &keys[bits == 1024];

    if (*key == NULL)
        *key = EVP_RSA_gen(bits);
    if (*key != NULL)
        (void)EVP_PKEY_up_ref(*key);
    return *key;
}

static EVP_PKEY *
make_key(enum key_kind kind)
{
    EVP_PKEY *key = kind == KEY_EC         ? EVP_EC_gen("P-256")
                    : kind == KEY_EC_384   ? EVP_EC_gen("P-384")
                    : kind == KEY_ED25519  ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
                    : kind == KEY_RSA_1024 ? rsa_key(1024)
                                           : rsa_key(2048);

    MUST(key != NULL);
    return key;
}

static void
add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    MUST(ext != NULL);
    MUST(X509_add_ext(cert, ext, -1) == 1);
    X509_EXTENSION_free(ext);
}

static void
add_raw_san(X509 *cert, const uint8_t *der, size_t len)
{
    ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
    X509_EXTENSION *ext;

    MUST(ASN1_OCTET_STRING_set(octets, der, (int)len) == 1);
    ext = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, octets);
    MUST(X509_add_ext(cert, ext, -1) == 1);
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(octets);
}

static void
add_extensions(X509 *cert, X509 *issuer, const struct cert_spec *spec)
{
    add_extension(cert, issuer, NID_basic_constraints, spec->ca ? "critical,CA:TRUE" : "CA:FALSE");
    add_extension(cert, issuer, NID_subject_key_identifier, "hash");
    if (spec->san != NULL)
        add_raw_san(cert, spec->san, spec->san_len);
    else if (spec->names != NULL)
        add_extension(cert, issuer, NID_subject_alt_name, spec->names);
    if (spec->must_staple)
        add_extension(cert, issuer, NID_tlsfeature, "status_request");
    if (spec->ocsp_signer)
        add_extension(cert, issuer, NID_ext_key_usage, "OCSPSigning");
}

static char *
bio_text(BIO *bio)
{
    char *data, *text;
    long n = BIO_get_mem_data(bio, &data);

    text = malloc((size_t)n + 1);
    MUST(text != NULL);
    memcpy(text, data, (size_t)n);
    text[n] = '\0';
    BIO_free(bio);
    return text;
}

static void
write_pem(struct made *m)
{
    BIO *bio = BIO_new(BIO_s_mem());

    for (const struct made *up = m; up != NULL && (up == m || up->issuer != NULL); up = up->issuer)
        MUST(PEM_write_bio_X509(bio, up->cert) == 1);
    m->chain = bio_text(bio);
    bio = BIO_new(BIO_s_mem());
    MUST(PEM_write_bio_PrivateKey(bio, m->key, NULL, NULL, 0, NULL, NULL) == 1);
    m->key_pem = bio_text(bio);
}

struct made *
cert_make(const struct cert_spec *spec)
{
    static int serial;
    struct made *m = calloc(1, sizeof(*m));
    int from = spec->from_days, to = spec->to_days;
    X509_NAME *subject;
    EVP_PKEY *signer;
    X509 *issuer;

    MUST(m != NULL);
    m->issuer = spec->issuer;
    m->key = make_key(spec->kind);
    m->cert = X509_new();
    issuer = spec->issuer != NULL ? spec->issuer->cert : m->cert;
    if (from == 0 && to == 0) {
        from = -1;
        to = 90;
    }
    MUST(X509_set_version(m->cert, X509_VERSION_3) == 1);
    MUST(ASN1_INTEGER_set(X509_get_serialNumber(m->cert), 1000 + ++serial) == 1);
    MUST(X509_gmtime_adj(X509_getm_notBefore(m->cert), from * DAY) != NULL);
    MUST(X509_gmtime_adj(X509_getm_notAfter(m->cert), to * DAY) != NULL);
    subject = X509_get_subject_name(m->cert);
    if (spec->cn != NULL)
        MUST(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                        (const unsigned char *)spec->cn, -1, -1, 0) == 1);
    MUST(X509_set_issuer_name(m->cert, X509_get_subject_name(issuer)) == 1);
    MUST(X509_set_pubkey(m->cert, m->key) == 1);
    add_extensions(m->cert, issuer, spec);
    signer = spec->issuer != NULL ? spec->issuer->key : m->key;
    MUST(X509_sign(m->cert, signer, EVP_PKEY_is_a(signer, "ED25519") ? NULL : EVP_sha256()) > 0);
    write_pem(m);
    return m;
}

void
cert_free(struct made *m)
{
    if (m == NULL)
        return;
    X509_free(m->cert);
    EVP_PKEY_free(m->key);
    free(m->chain);
    free(m->key_pem);
    free(m);
}

struct hs_tls_source
pem(const char *text)
{
    return (struct hs_tls_source){.data = text, .len = strlen(text)};
}

struct hs_tls_identity
identity(const struct made *m)
{
    return (struct hs_tls_identity){.chain = pem(m->chain), .key = pem(m->key_pem)};
}

uint8_t *
staple_make(const struct staple_spec *spec, size_t *ret_len)
{
    const struct made *signer = spec->signer != NULL ? spec->signer : spec->issuer;
    const EVP_MD *md = EVP_get_digestbyname(spec->digest != NULL ? spec->digest : "SHA1");
    OCSP_CERTID *id = OCSP_cert_to_id(md, spec->about->cert, spec->issuer->cert);
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, spec->this_update_s);
    ASN1_TIME *to = spec->next_update_s != 0 ? X509_gmtime_adj(NULL, spec->next_update_s) : NULL;
    ASN1_TIME *revoked = spec->status == V_OCSP_CERTSTATUS_REVOKED ? from : NULL;
    OCSP_RESPONSE *response;
    unsigned char *der = NULL;
    uint8_t *copy;
    int len;

    MUST(OCSP_basic_add1_status(basic, id, spec->status, OCSP_REVOKED_STATUS_KEYCOMPROMISE, revoked,
                                from, to) != NULL);
    MUST(OCSP_basic_sign(basic, signer->cert, signer->key, EVP_sha256(), NULL,
                         spec->enclose ? 0 : OCSP_NOCERTS) == 1);
    response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    len = i2d_OCSP_RESPONSE(response, &der);
    MUST(len > 0);
    copy = malloc((size_t)len);
    memcpy(copy, der, (size_t)len);
    *ret_len = (size_t)len;
    OPENSSL_free(der);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return copy;
}

char *
crl_make(const struct made *issuer, const struct made *const *revoked, size_t n)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -DAY), *to = X509_gmtime_adj(NULL, DAY);
    BIO *bio = BIO_new(BIO_s_mem());

    MUST(X509_CRL_set_version(crl, X509_CRL_VERSION_2) == 1);
    MUST(X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert)) == 1);
    MUST(X509_CRL_set1_lastUpdate(crl, from) == 1);
    MUST(X509_CRL_set1_nextUpdate(crl, to) == 1);
    for (size_t i = 0; i < n; i++) {
        X509_REVOKED *entry = X509_REVOKED_new();

        MUST(X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked[i]->cert)) == 1);
        MUST(X509_REVOKED_set_revocationDate(entry, from) == 1);
        MUST(X509_CRL_add0_revoked(crl, entry) == 1);
    }
    MUST(X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0);
    MUST(PEM_write_bio_X509_CRL(bio, crl) == 1);
    X509_CRL_free(crl);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return bio_text(bio);
}

void
tls_world(void)
{
    if (world.root != NULL)
        return;
    world.root = cert_make(&(struct cert_spec){.cn = "Test Root", .ca = true});
    world.other_root = cert_make(&(struct cert_spec){.cn = "Other Root", .ca = true});
    world.leaf = cert_make(
        &(struct cert_spec){.cn = "leaf",
                            .names = "DNS:a.example,DNS:*.wild.example,IP:127.0.0.1,IP:::1",
                            .issuer = world.root});
    world.leaf_rsa = cert_make(&(struct cert_spec){
        .cn = "leaf", .names = "DNS:a.example", .issuer = world.root, .kind = KEY_RSA});
    world.second = cert_make(
        &(struct cert_spec){.cn = "second", .names = "DNS:b.example", .issuer = world.root});
    world.client = cert_make(&(struct cert_spec){.cn = "somebody", .issuer = world.root});
    world.stranger = cert_make(&(struct cert_spec){.cn = "somebody", .issuer = world.other_root});
}

/* ---- Settings ------------------------------------------------------------------------------ */

static struct hs_tls_source root_source;
static struct hs_tls_identity leaf_identity;

struct hs_tls_options
client_options(void)
{
    struct hs_tls_options o;

    root_source = pem(world.root->chain);
    hs_tls_options_init(&o, HS_TLS_CLIENT);
    o.system_ca = false;
    o.cas = &root_source;
    o.n_cas = 1;
    return o;
}

struct hs_tls_options
server_options(void)
{
    struct hs_tls_options o;

    leaf_identity = identity(world.leaf);
    hs_tls_options_init(&o, HS_TLS_SERVER);
    o.identities = &leaf_identity;
    o.n_identities = 1;
    return o;
}

struct hs_tls_config *
config_of(const struct hs_tls_options *o)
{
    struct hs_tls_config *config;

    ASSERT_OK(hs_tls_config_new(o, fresh(), &config));
    return config;
}

void
only_version(struct hs_tls_options *o, int version)
{
    if (version != 0)
        o->min_version = o->max_version = version;
}

/* ---- Connections --------------------------------------------------------------------------- */

hs_err
shake_step(struct shaking *s)
{
    if (s->op.deadline_ns == 0) {
        s->op = op_step(10 * SECOND);
        s->rv = HS_WANT;
    }
    if (s->rv == HS_WANT || s->rv == HS_INTR)
        s->rv = (s->read_ahead ? hs_conn_start_tls_read_ahead
                               : hs_conn_start_tls)(s->c, &s->op, s->config, s->name, &s->err);
    return s->rv;
}

/* What one sends the other has at once: several idle turns mean that nothing more will come. */
void
handshake_both(struct shaking *a, struct shaking *b)
{
    for (int idle = 0; idle < 50; idle++) {
        hs_err first = shake_step(a), second = shake_step(b);

        if (first != HS_WANT && second != HS_WANT)
            return;
    }
}

bool tls_within;

struct tls_pair
plain_pair(bool tcp)
{
    struct tls_pair p;
    struct hs_sockopts opts;
    int fds[2];

    hs_sockopts_init(&opts);
    opts.nodelay = tcp ? 1 : opts.nodelay; /* What one has sent the other has. */
    if (tcp)
        tcp_pair(fds);
    else
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    ASSERT_OK(hs_conn_adopt(fds[0], &opts, fresh(), &p.client));
    ASSERT_OK(hs_conn_adopt(fds[1], &opts, fresh(), &p.server));
    return p;
}

struct tls_pair
shaken_pair(bool tcp, struct hs_tls_config *client, struct hs_tls_config *server)
{
    struct tls_pair p = plain_pair(tcp);
    struct shaking a = {.c = p.client, .config = client, .name = "a.example"};
    struct shaking b = {.c = p.server, .config = server};

    for (int layers = 0; layers < (tls_within ? 2 : 1); layers++) {
        a.rv = b.rv = HS_WANT;
        handshake_both(&a, &b);
        ck_assert_msg(a.rv == HS_OK && b.rv == HS_OK, "client: %s [%s]\nserver: %s [%s]",
                      hs_err_text(a.rv), a.err.msg, hs_err_text(b.rv), b.err.msg);
    }
    hs_tls_config_unref(client);
    hs_tls_config_unref(server);
    return p;
}

struct tls_pair
default_pair(bool tcp, int version)
{
    struct hs_tls_options client = client_options(), server = server_options();

    only_version(&client, version);
    return shaken_pair(tcp, config_of(&client), config_of(&server));
}

struct tls_pair
plain_pumped_pair(struct pump *ret_pump)
{
    struct tls_pair p;
    int near[2], far[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, near), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, far), 0);
    ASSERT_OK(hs_conn_adopt(near[0], NULL, fresh(), &p.client));
    ASSERT_OK(hs_conn_adopt(far[0], NULL, fresh(), &p.server));
    *ret_pump = (struct pump){.fds = {near[1], far[1]}};
    return p;
}

size_t
pump_move(struct pump *pump, int from, size_t max)
{
    uint8_t buf[65536];
    size_t moved = 0;
    ssize_t n;

    while (moved < max &&
           (n = recv(pump->fds[from], buf, max - moved < sizeof(buf) ? max - moved : sizeof(buf),
                     MSG_DONTWAIT)) > 0) {
        put(pump->fds[1 - from], buf, (size_t)n);
        moved += (size_t)n;
    }
    return moved;
}

void
pump_free(struct pump *pump)
{
    close_all(pump->fds, 2);
}

static void
shake_pumped(struct pump *pump, struct shaking *a, struct shaking *b)
{
    a->rv = b->rv = HS_WANT;
    for (int i = 0; i < 20 && (a->rv != HS_OK || b->rv != HS_OK); i++) {
        (void)pump_move(pump, 1, SIZE_MAX);
        (void)shake_step(a);
        (void)pump_move(pump, 0, SIZE_MAX);
        (void)shake_step(b);
    }
    ASSERT_OK(a->rv);
    ASSERT_OK(b->rv);
}

struct tls_pair
pumped_pair_without_tickets(struct pump *ret_pump, int version)
{
    struct tls_pair p = plain_pumped_pair(ret_pump);
    struct hs_tls_options client = client_options(), server = server_options();
    struct shaking a = {.c = p.client, .name = "a.example"};
    struct shaking b = {.c = p.server};

    only_version(&client, version);
    a.config = config_of(&client);
    b.config = config_of(&server);
    for (int layers = 0; layers < (tls_within ? 2 : 1); layers++)
        shake_pumped(ret_pump, &a, &b);
    hs_tls_config_unref(a.config);
    hs_tls_config_unref(b.config);
    return p;
}

struct tls_pair
pumped_pair(struct pump *ret_pump, int version)
{
    struct tls_pair p = pumped_pair_without_tickets(ret_pump, version);

    (void)pump_move(ret_pump, 1, SIZE_MAX);
    return p;
}

void
pump_record(struct pump *pump, int from)
{
    uint8_t header[5];

    ck_assert_int_eq(recv(pump->fds[from], header, 5, MSG_PEEK | MSG_DONTWAIT), 5);
    (void)pump_move(pump, from, 5 + ((size_t)header[3] << 8 | header[4]));
}

void
tls_pair_free(struct tls_pair *p)
{
    hs_conn_unref(p->client);
    hs_conn_unref(p->server);
}

void
carry(struct hs_conn *from, struct hs_conn *to, const void *bytes, size_t n)
{
    struct hs_op out = op_in(10 * SECOND), in = op_in(10 * SECOND);
    uint8_t *got = malloc(n);

    ASSERT_OK(DONE(hs_conn_send_all(from, &out, bytes, n, fresh())));
    ASSERT_OK(DONE(hs_conn_recv_exactly(to, &in, got, n, fresh())));
    ck_assert_mem_eq(got, bytes, n);
    free(got);
}

/* ---- OpenSSL alone ------------------------------------------------------------------------- */

SSL_CTX *
raw_context(bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

    ck_assert_ptr_nonnull(ctx);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (server)
        ck_assert_int_eq(SSL_CTX_use_cert_and_key(ctx, world.leaf->cert, world.leaf->key, NULL, 1),
                         1);
    return ctx;
}

SSL *
raw_new(SSL_CTX *ctx, int fd, bool server)
{
    SSL *ssl = SSL_new(ctx);

    ck_assert_ptr_nonnull(ssl);
    ck_assert_int_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
    ck_assert_int_eq(SSL_set_fd(ssl, fd), 1);
    if (server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

void
raw_free(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);

    SSL_free(ssl);
    (void)close(fd);
    ERR_clear_error();
}

void
shake_raw(struct shaking *ours, SSL *raw)
{
    for (int idle = 0; idle < 50; idle++) {
        hs_err rv = shake_step(ours);
        int ret;

        ERR_clear_error();
        ret = SSL_do_handshake(raw);
        if (rv != HS_WANT && ret == 1)
            return;
        if (ret != 1 && SSL_get_error(raw, ret) != SSL_ERROR_WANT_READ &&
            SSL_get_error(raw, ret) != SSL_ERROR_WANT_WRITE && rv != HS_WANT)
            return;
    }
}

void
raw_write(SSL *ssl, const void *bytes, size_t n)
{
    size_t done;

    ERR_clear_error();
    ck_assert_int_eq(SSL_write_ex(ssl, bytes, n, &done), 1);
    ck_assert_uint_eq(done, n);
}

void
raw_read(SSL *ssl, void *bytes, size_t n)
{
    size_t done = 0, got;

    ERR_clear_error();
    while (done < n) {
        ck_assert_msg(SSL_read_ex(ssl, (uint8_t *)bytes + done, n - done, &got) == 1, "%d: %s",
                      SSL_get_error(ssl, 0), ERR_reason_error_string(ERR_peek_error()));
        done += got;
    }
}

SSL *
raw_client_of(struct shaking *server, SSL_CTX **ret_ctx, int version)
{
    struct hs_tls_options o = server_options();
    struct hs_sockopts opts;
    int fds[2];
    SSL *ssl;

    only_version(&o, version);
    *ret_ctx = raw_context(false);
    hs_sockopts_init(&opts);
    opts.nodelay = 1;
    tcp_pair(fds);
    *server = (struct shaking){.config = config_of(&o)};
    ASSERT_OK(hs_conn_adopt(fds[1], &opts, fresh(), &server->c));
    ssl = raw_new(*ret_ctx, fds[0], false);
    shake_raw(server, ssl);
    ASSERT_OK(server->rv);
    return ssl;
}

void
raw_client_free(struct shaking *server, SSL *ssl, SSL_CTX *ctx)
{
    raw_free(ssl);
    SSL_CTX_free(ctx);
    hs_conn_unref(server->c);
    hs_tls_config_unref(server->config);
}
