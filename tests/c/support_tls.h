/* support_tls.h: certificates made in memory, connections with both ends here, and ends that are
 * driven by OpenSSL alone, which do what ours never would.
 *
 * One thread is enough for a handshake: both ends are stepped in turns. Keys are made once, before
 * libcheck forks for each test.
 */
#ifndef TESTS_C_SUPPORT_TLS_H
#define TESTS_C_SUPPORT_TLS_H

#include "support.h"

#include <openssl/ocsp.h>
#include <openssl/ssl.h>

/* ---- Certificates -------------------------------------------------------------------------- */

enum key_kind { KEY_EC, KEY_RSA, KEY_RSA_1024, KEY_EC_384, KEY_ED25519 };

struct made {
    X509 *cert;
    EVP_PKEY *key;
    const struct made *issuer; /* NULL: itself */
    char *chain, *key_pem;     /* PEM: the certificate and what is above it but the root; the key */
};

struct cert_spec {
    const char *cn;    /* NULL: an empty subject */
    const char *names; /* as openssl.cnf has it: "DNS:a.example,IP:192.0.2.1"; NULL: none */
    const struct made *issuer;
    enum key_kind kind;
    bool ca, must_staple, ocsp_signer;
    int from_days, to_days; /* from now; both 0: from yesterday for 90 days */
    const uint8_t *san;     /* DER of subjectAltName, instead of names */
    size_t san_len;
};

struct made *cert_make(const struct cert_spec *spec);
void cert_free(struct made *m);
struct hs_tls_source pem(const char *text);
struct hs_tls_identity identity(const struct made *m);

struct staple_spec {
    const struct made *about, *issuer, *signer; /* signer NULL: the issuer */
    int status;                                 /* V_OCSP_CERTSTATUS_* */
    long this_update_s, next_update_s;          /* from now; next 0: none */
    bool enclose;                               /* the signer's certificate */
    const char *digest;                         /* by which it names it; NULL: SHA-1 */
};
/* In DER; owned by the caller. */
uint8_t *staple_make(const struct staple_spec *spec, size_t *ret_len);
/* PEM of a revocation list of issuer with these certificates; owned by the caller. */
char *crl_make(const struct made *issuer, const struct made *const *revoked, size_t n);

/* Made once, by tls_world(). */
extern struct world {
    struct made *root, *other_root;
    struct made *leaf;     /* a.example, *.wild.example, 127.0.0.1, ::1 */
    struct made *leaf_rsa; /* a.example, with an RSA key */
    struct made *second;   /* b.example */
    struct made *client;   /* somebody, signed by root */
    struct made *stranger; /* the same, signed by other_root */
} world;
void tls_world(void);

/* ---- Settings ------------------------------------------------------------------------------ */

/* A client that trusts world.root alone; a server with world.leaf. Pointers go to static memory. */
struct hs_tls_options client_options(void);
struct hs_tls_options server_options(void);
struct hs_tls_config *config_of(const struct hs_tls_options *o);
/* Both with all versions but this one off; 0: as they are. */
void only_version(struct hs_tls_options *o, int version);

/* ---- Connections --------------------------------------------------------------------------- */

struct tls_pair {
    struct hs_conn *client, *server;
};

struct shaking {
    struct hs_conn *c;
    struct hs_tls_config *config;
    const char *name;
    bool read_ahead;
    struct hs_op op;
    hs_err rv; /* HS_WANT: not yet over */
    struct hs_error err;
};
/* HS_WANT when it has to be called again. */
hs_err shake_step(struct shaking *s);
/* Both, until each has ended or neither could go on for a while. */
void handshake_both(struct shaking *a, struct shaking *b);
/* Pairs that have shaken hands do it again within what they agreed on: TLS within TLS. */
extern bool tls_within;
/* Connections over TCP or a unix socket, before the handshake. */
struct tls_pair plain_pair(bool tcp);
/* The same with a handshake for a.example; the configs are dropped. */
struct tls_pair shaken_pair(bool tcp, struct hs_tls_config *client, struct hs_tls_config *server);
struct tls_pair default_pair(bool tcp, int version);
void tls_pair_free(struct tls_pair *p);
/* A wire between two sockets, whose bytes move when we say: fds[0] is the client's side. */
struct pump {
    int fds[2];
};
/* A pair that is connected by a pump, with or without the handshake done. */
struct tls_pair plain_pumped_pair(struct pump *ret_pump);
struct tls_pair pumped_pair(struct pump *ret_pump, int version);
/* The same, with the server's tickets still in the pump. */
struct tls_pair pumped_pair_without_tickets(struct pump *ret_pump, int version);
/* One TLS record. */
void pump_record(struct pump *pump, int from);
/* Moves what has come at one side, max bytes at most, to the other; returns how many. */
size_t pump_move(struct pump *pump, int from, size_t max);
void pump_free(struct pump *pump);
/* Sends from one and receives at the other. */
void carry(struct hs_conn *from, struct hs_conn *to, const void *bytes, size_t n);

/* ---- OpenSSL alone ------------------------------------------------------------------------- */

/* A context with world.leaf (server), or one that trusts everybody. */
SSL_CTX *raw_context(bool server);
/* Takes fd, makes it non-blocking. */
SSL *raw_new(SSL_CTX *ctx, int fd, bool server);
void raw_free(SSL *ssl);
/* A handshake of ours with a raw end. */
void shake_raw(struct shaking *ours, SSL *raw);
/* One whose handshake is done with a server of ours. */
SSL *raw_client_of(struct shaking *server, SSL_CTX **ret_ctx, int version);
void raw_client_free(struct shaking *server, SSL *ssl, SSL_CTX *ctx);
/* Writes or reads exactly n bytes while the socket lets it. */
void raw_write(SSL *ssl, const void *bytes, size_t n);
void raw_read(SSL *ssl, void *bytes, size_t n);

#endif
