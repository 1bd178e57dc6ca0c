/* fuzz_tls.c: whatever strangers say in TLS, nothing of it is believed that was not sealed.
 *
 * The first byte chooses: both ends are ours and what passes between them is damaged; one end is,
 * and is told any bytes; any bytes as a certificate, as a staple, as a list of protocols. Damaged
 * or not, what an end returns as received must be what the other has sent. Randomness comes from a
 * counter, so that a flight is the same for the same input.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "hardsock.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define SECOND INT64_C(1000000000)
#define MUST(cond) ((cond) ? (void)0 : abort())

enum { BOTH_1_2, BOTH_1_3, SERVER, CLIENT, CERTIFICATE, STAPLE, ALPN, KINDS };

static struct hs_tls_config *client_config, *client_1_2, *server_config, *strict_client;
static SSL_CTX *stapler; /* OpenSSL's own server, which staples anything */
static const uint8_t *staple;
static size_t staple_len;
static char chain_pem[4096], key_pem[4096];

/* ---- Randomness, and one certificate ------------------------------------------------------- */

static uint64_t counter;

static int
give_bytes(unsigned char *buf, int n)
{
    for (int i = 0; i < n; i++) {
        counter = counter * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        buf[i] = (unsigned char)(counter >> 56);
    }
    return 1;
}

static int
is_seeded(void)
{
    return 1;
}

static const RAND_METHOD from_a_counter = {
    .bytes = give_bytes, .pseudorand = give_bytes, .status = is_seeded};

static void
write_pem(BIO *bio, char *out, size_t size)
{
    char *text;
    long n = BIO_get_mem_data(bio, &text);

    MUST(n > 0 && (size_t)n < size);
    memcpy(out, text, (size_t)n);
    out[n] = '\0';
    BIO_free(bio);
}

/* Trusted by itself. */
static void
make_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *cert = BIO_new(BIO_s_mem()), *secret = BIO_new(BIO_s_mem());
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:a.example");

    MUST(X509_set_version(x, X509_VERSION_3) && X509_set_pubkey(x, key) &&
         ASN1_INTEGER_set(X509_get_serialNumber(x), 1) &&
         X509_gmtime_adj(X509_getm_notBefore(x), -86400) != NULL &&
         X509_gmtime_adj(X509_getm_notAfter(x), 86400 * 300L) != NULL &&
         X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                                    (const unsigned char *)"fuzz", -1, -1, 0) &&
         X509_set_issuer_name(x, X509_get_subject_name(x)) && X509_add_ext(x, names, -1) &&
         X509_sign(x, key, EVP_sha256()) > 0);
    MUST(PEM_write_bio_X509(cert, x) &&
         PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL));
    write_pem(cert, chain_pem, sizeof(chain_pem));
    write_pem(secret, key_pem, sizeof(key_pem));
    stapler = SSL_CTX_new(TLS_server_method());
    MUST(stapler != NULL && SSL_CTX_use_cert_and_key(stapler, x, key, NULL, 1));
    X509_EXTENSION_free(names);
    X509_free(x);
    EVP_PKEY_free(key);
}

static int
give_staple(SSL *ssl, void *arg)
{
    unsigned char *copy = staple_len > 0 ? OPENSSL_memdup(staple, staple_len) : NULL;

    (void)arg;
    if (copy == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    (void)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple_len);
    return SSL_TLSEXT_ERR_OK;
}

static struct hs_tls_source chain_source, key_source;

static struct hs_tls_options
client_options(void)
{
    struct hs_tls_options o;

    hs_tls_options_init(&o, HS_TLS_CLIENT);
    chain_source = (struct hs_tls_source){.data = chain_pem, .len = strlen(chain_pem)};
    o.system_ca = false;
    o.cas = &chain_source;
    o.n_cas = 1;
    o.sessions = false;
    return o;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct hs_tls_identity id;
    struct hs_tls_options client, server;

    (void)argc;
    (void)argv;
    MUST(RAND_set_rand_method(&from_a_counter));
    make_certificate();
    (void)SSL_CTX_set_tlsext_status_cb(stapler, give_staple);
    (void)SSL_CTX_set_num_tickets(stapler, 0);
    client = client_options();
    MUST(hs_tls_config_new(&client, NULL, &client_config) == HS_OK);
    client.ocsp = HS_TLS_OCSP_REQUIRE;
    MUST(hs_tls_config_new(&client, NULL, &strict_client) == HS_OK);
    client.ocsp = HS_TLS_OCSP_CHECK;
    client.max_version = HS_TLS_1_2;
    MUST(hs_tls_config_new(&client, NULL, &client_1_2) == HS_OK);
    hs_tls_options_init(&server, HS_TLS_SERVER);
    key_source = (struct hs_tls_source){.data = key_pem, .len = strlen(key_pem)};
    id = (struct hs_tls_identity){.chain = chain_source, .key = key_source};
    server.identities = &id;
    server.n_identities = 1;
    MUST(hs_tls_config_new(&server, NULL, &server_config) == HS_OK);
    return 0;
}

/* ---- Ends ---------------------------------------------------------------------------------- */

struct end {
    struct hs_conn *c;
    int wire; /* the other side of its socket */
    struct hs_tls_config *config;
    const char *name;
    struct hs_op op;
    struct hs_error err;
    hs_err rv; /* of the handshake; HS_WANT: it goes on */
    size_t received;
    bool over; /* reading has ended */
};

static const char message[] = "what one end says, of which the other may hear a part, but no other";

static void
end_open(struct end *e, struct hs_tls_config *config, const char *name)
{
    int fds[2];

    *e = (struct end){.config = config, .name = name, .rv = HS_WANT};
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    MUST(hs_conn_adopt(fds[0], NULL, NULL, &e->c) == HS_OK);
    e->wire = fds[1];
    e->op = (struct hs_op)HS_OP_INIT(hs_deadline_after(10 * SECOND), NULL);
    e->op.stepping = true;
}

static void
check_failure(const struct end *e)
{
    MUST(e->err.code == e->rv && e->err.phase != NULL && e->err.msg[0] != '\0');
    MUST(memchr(e->err.msg, 0, sizeof(e->err.msg)) != NULL);
    MUST(e->err.tls != HS_TLS_NONE && e->err.tls < HS_TLS_FAILURES);
    MUST(e->rv == HS_E_TLS || e->rv == HS_E_CERTIFICATE || e->rv == HS_E_RESET);
}

/* One try of everything that an end may do. */
static void
end_step(struct end *e)
{
    struct hs_op out = HS_OP_INIT(HS_TRY_ONCE, NULL), in = out;
    uint8_t buf[256];
    size_t n;
    hs_err rv = HS_OK;

    if (e->rv == HS_WANT || e->rv == HS_INTR) {
        e->rv = hs_conn_start_tls(e->c, &e->op, e->config, e->name, &e->err);
        if (e->rv < 0)
            check_failure(e);
        if (e->rv != HS_OK)
            return;
        (void)!hs_conn_send_all(e->c, &out, (const uint8_t *)message, sizeof(message), NULL);
    }
    for (int i = 0; i < 100 && !e->over && e->rv == HS_OK; i++) {
        in = (struct hs_op)HS_OP_INIT(HS_TRY_ONCE, NULL);
        rv = hs_conn_recv(e->c, &in, buf, sizeof(buf), 0, NULL, &n);
        if (rv == HS_E_DEADLINE)
            break;
        if (rv == HS_INTR) {
            hs_conn_abandon(e->c, &in, NULL);
            continue;
        }
        e->over = rv != HS_OK || n == 0;
        if (rv == HS_OK &&
            (n > sizeof(message) - e->received || memcmp(buf, message + e->received, n) != 0))
            abort(); /* Nobody sealed this. */
        e->received += rv == HS_OK ? n : 0;
    }
}

static void
end_close(struct end *e)
{
    struct hs_tls_info info;

    MUST(hs_conn_tls_info(e->c, &info) == (e->rv == HS_OK));
    hs_conn_abandon(e->c, &e->op, NULL);
    hs_conn_close(e->c, false);
    hs_conn_unref(e->c);
    (void)close(e->wire);
}

/* ---- Both ends are ours -------------------------------------------------------------------- */

/* Three bytes each: which turn, where in it, what to do there. */
static size_t
damage(uint8_t *bytes, size_t n, size_t room, unsigned turn, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 2 < size && n > 0; i += 3) {
        size_t at = (size_t)data[i + 1] * n / 256;

        if (data[i] % 16 != turn)
            continue;
        switch (data[i] / 16) {
        case 0:
            n = at; /* the rest is lost */
            break;
        case 1: /* said twice */
            if (n * 2 <= room) {
                memcpy(bytes + n, bytes, n);
                n *= 2;
            }
            break;
        case 2: /* a byte more */
            if (n < room) {
                memmove(bytes + at + 1, bytes + at, n - at);
                bytes[at] = data[i + 2];
                n++;
            }
            break;
        case 3: /* a byte less */
            memmove(bytes + at, bytes + at + 1, n - at - 1);
            n--;
            break;
        case 4:
            bytes[at] = data[i + 2];
            break;
        default:
            bytes[at] ^= (uint8_t)(1 << data[i + 2] % 8);
        }
    }
    return n;
}

static void
carry(struct end *from, struct end *to, unsigned turn, const uint8_t *data, size_t size)
{
    uint8_t bytes[16384];
    ssize_t n = recv(from->wire, bytes, sizeof(bytes) / 2, MSG_DONTWAIT);

    if (n <= 0)
        return;
    n = (ssize_t)damage(bytes, (size_t)n, sizeof(bytes), turn, data, size);
    if (n > 0)
        (void)!send(to->wire, bytes, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
run_both(struct hs_tls_config *config, const uint8_t *data, size_t size)
{
    struct end a, b;

    end_open(&a, config, "a.example");
    end_open(&b, server_config, NULL);
    for (unsigned turn = 0; turn < 8; turn++) {
        end_step(&a);
        carry(&a, &b, 2 * turn, data, size);
        end_step(&b);
        carry(&b, &a, 2 * turn + 1, data, size);
    }
    if (size < 3 && (a.rv != HS_OK || b.rv != HS_OK || a.received != sizeof(message) ||
                     b.received != sizeof(message)))
        abort(); /* Nothing was damaged. */
    end_close(&a);
    end_close(&b);
}

/* ---- One is -------------------------------------------------------------------------------- */

/* The bytes come in pieces, each behind its length. */
static void
run_one(struct hs_tls_config *config, const char *name, const uint8_t *data, size_t size)
{
    struct end e;

    end_open(&e, config, name);
    end_step(&e);
    while (size > 0) {
        size_t n = data[0] < size - 1 ? data[0] : size - 1;

        (void)!send(e.wire, data + 1, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        end_step(&e);
        data += n + 1;
        size -= n + 1;
    }
    (void)shutdown(e.wire, SHUT_WR);
    end_step(&e);
    MUST(e.rv < 0); /* Without a key there is no handshake. */
    end_close(&e);
}

/* Nobody has signed it: however it looks, a client that asks for staples must refuse. */
static void
run_staple(const uint8_t *data, size_t size)
{
    SSL *raw = SSL_new(stapler);
    struct end e;

    staple = data;
    staple_len = size;
    end_open(&e, strict_client, "a.example");
    MUST(raw != NULL && SSL_set_fd(raw, e.wire));
    SSL_set_accept_state(raw);
    for (int i = 0; i < 6 && e.rv == HS_WANT; i++) {
        struct pollfd fd = {.fd = e.wire, .events = POLLIN};

        end_step(&e);
        if (poll(&fd, 1, 0) == 1)
            (void)SSL_do_handshake(raw);
        ERR_clear_error();
    }
    MUST(e.rv == HS_E_CERTIFICATE && e.err.tls == HS_TLS_VERIFY);
    SSL_free(raw);
    ERR_clear_error();
    end_close(&e);
}

/* ---- Bytes --------------------------------------------------------------------------------- */

static void
run_certificate(const uint8_t *data, size_t size)
{
    struct hs_tls_certificate cert;
    struct hs_error err = {0};
    hs_err rv = hs_tls_certificate_read(data, size, &err, &cert);

    if (rv == HS_OK) {
        MUST(cert.subject != NULL && cert.issuer != NULL && cert.names != NULL &&
             cert.serial != NULL);
        for (const char *c = cert.names; *c != '\0'; c++)
            MUST((unsigned char)*c >= 0x20 || *c == '\n');
        hs_tls_certificate_fini(&cert);
    } else {
        MUST(rv == HS_E_INVALID && err.msg[0] != '\0');
    }
}

static void
run_alpn(const uint8_t *data, size_t size)
{
    struct hs_tls_options o = client_options();
    struct hs_tls_config *config;
    size_t at = 0;
    hs_err rv;

    o.alpn = data;
    o.alpn_len = size;
    o.insecure_skip_verify = true; /* nothing to load */
    rv = hs_tls_config_new(&o, NULL, &config);
    while (at < size && data[at] != 0)
        at += (size_t)data[at] + 1;
    MUST((rv == HS_OK) == (at == size || size > 65535));
    if (rv == HS_OK)
        hs_tls_config_unref(config);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 4096)
        return 0;
    counter = 1;
    switch (data[0] % KINDS) {
    case BOTH_1_2:
        run_both(client_1_2, data + 1, size - 1);
        break;
    case BOTH_1_3:
        run_both(client_config, data + 1, size - 1);
        break;
    case SERVER:
        run_one(server_config, NULL, data + 1, size - 1);
        break;
    case CLIENT:
        run_one(client_config, "a.example", data + 1, size - 1);
        break;
    case CERTIFICATE:
        run_certificate(data + 1, size - 1);
        break;
    case STAPLE:
        run_staple(data + 1, size - 1);
        break;
    case ALPN:
        run_alpn(data + 1, size - 1);
        break;
    }
    return 0;
}
