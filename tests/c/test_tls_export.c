/* test_tls_export.c: what both ends derive from a handshake, beside what OpenSSL derives alone.
 *
 * A secret or a binding that somebody between two connections could have, too, is refused.
 */
#include "support_tls.h"

#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

static const int versions[] = {HS_TLS_1_2, HS_TLS_1_3};
static const char label[] = "EXPERIMENTAL hardsock";

static void export(struct hs_conn *c, const char *about, const char *context, uint8_t out[32])
{
    const struct hs_tls_exported what = {.label = about,
                                         .label_len = strlen(about),
                                         .context = (const uint8_t *)context,
                                         .context_len = context != NULL ? strlen(context) : 0};

    ASSERT_OK(hs_conn_tls_export(c, &what, out, 32, fresh()));
}

static void
bind_both(struct tls_pair *p, enum hs_tls_binding kind, uint8_t out[HS_TLS_BINDING_MAX], size_t *n)
{
    uint8_t other[HS_TLS_BINDING_MAX];
    size_t len;

    ASSERT_OK(hs_conn_tls_binding(p->client, kind, out, n, fresh()));
    ASSERT_OK(hs_conn_tls_binding(p->server, kind, other, &len, fresh()));
    ck_assert_uint_eq(*n, len);
    ck_assert_mem_eq(out, other, len);
}

START_TEST(both_ends_derive_the_same_and_nobody_else)
{
    struct tls_pair p = default_pair(false, versions[_i]),
                    other = default_pair(false, versions[_i]);
    const char *const contexts[] = {NULL, "", "context"};
    uint8_t got[5][32], there[32];

    for (int i = 0; i < 3; i++) {
        export(p.client, label, contexts[i], got[i]);
        export(p.server, label, contexts[i], there);
        ck_assert_mem_eq(got[i], there, 32);
    }
    export(p.client, "EXPERIMENTAL other", NULL, got[3]);
    export(other.client, label, NULL, got[4]);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < i; j++) /* RFC 8446 section 7.5: none is the same as an empty one */
            ck_assert(memcmp(got[i], got[j], 32) != 0 || (j == 0 && i == 1 && _i == 1));
    tls_pair_free(&p);
    tls_pair_free(&other);
}
END_TEST

START_TEST(openssl_derives_the_same)
{
    struct tls_pair p = plain_pair(false);
    struct hs_tls_options o = client_options();
    struct shaking a = {.c = p.client, .name = "a.example", .rv = HS_WANT};
    SSL_CTX *ctx = raw_context(true);
    uint8_t ours[HS_TLS_BINDING_MAX], theirs[32];
    SSL *raw;
    size_t n;
    int fd;

    only_version(&o, versions[_i]);
    a.config = config_of(&o);
    ASSERT_OK(hs_conn_detach(p.server, fresh(), &fd));
    raw = raw_new(ctx, fd, true);
    shake_raw(&a, raw);
    ASSERT_OK(a.rv);
    export(p.client, label, "context", ours);
    ck_assert_int_eq(SSL_export_keying_material(raw, theirs, 32, label, strlen(label),
                                                (const uint8_t *)"context", 7, 1),
                     1);
    ck_assert_mem_eq(ours, theirs, 32);
    ASSERT_OK(hs_conn_tls_binding(p.client, HS_TLS_BINDING_EXPORTER, ours, &n, fresh()));
    ck_assert_uint_eq(n, 32);
    ck_assert_int_eq(SSL_export_keying_material(raw, theirs, 32, "EXPORTER-Channel-Binding", 24,
                                                (const uint8_t *)"", 0, 1),
                     1);
    ck_assert_mem_eq(ours, theirs, 32);
    raw_free(raw);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(a.config);
    tls_pair_free(&p);
}
END_TEST

START_TEST(the_end_point_is_the_hash_of_the_servers_certificate)
{
    struct tls_pair p = default_pair(false, versions[_i]);
    uint8_t got[HS_TLS_BINDING_MAX], want[HS_TLS_BINDING_MAX];
    unsigned len;
    size_t n;

    bind_both(&p, HS_TLS_BINDING_END_POINT, got, &n);
    ck_assert_int_eq(X509_digest(world.leaf->cert, EVP_sha256(), want, &len), 1);
    ck_assert_uint_eq(n, len);
    ck_assert_mem_eq(got, want, len);
    tls_pair_free(&p);
}
END_TEST

START_TEST(the_inner_layer_is_the_one_that_counts)
{
    struct hs_tls_options o = client_options(), so = server_options();
    struct hs_tls_config *client = config_of(&o), *server = config_of(&so);
    struct tls_pair p = default_pair(true, 0);
    struct shaking a = {.c = p.client, .config = client, .name = "a.example", .rv = HS_WANT};
    struct shaking b = {.c = p.server, .config = server, .rv = HS_WANT};
    uint8_t outer[HS_TLS_BINDING_MAX], inner[HS_TLS_BINDING_MAX];
    size_t n;

    bind_both(&p, HS_TLS_BINDING_EXPORTER, outer, &n);
    handshake_both(&a, &b);
    ASSERT_OK(a.rv);
    bind_both(&p, HS_TLS_BINDING_EXPORTER, inner, &n);
    ck_assert(memcmp(outer, inner, n) != 0);
    hs_tls_config_unref(client);
    hs_tls_config_unref(server);
    tls_pair_free(&p);
}
END_TEST

START_TEST(a_server_that_has_resumed_knows_no_end_point)
{
    struct hs_tls_options o = client_options(), so = server_options();
    struct hs_tls_config *client, *server = config_of(&so);
    uint8_t got[HS_TLS_BINDING_MAX], first[HS_TLS_BINDING_MAX];
    size_t n;

    only_version(&o, versions[_i]);
    client = config_of(&o);
    for (int i = 0; i < 2; i++) {
        struct tls_pair p =
            shaken_pair(false, hs_tls_config_ref(client), hs_tls_config_ref(server));

        carry(p.server, p.client, "x", 1); /* The ticket comes before it. */
        if (i == 0) {
            bind_both(&p, HS_TLS_BINDING_END_POINT, first, &n);
        } else {
            ASSERT_OK(hs_conn_tls_binding(p.client, HS_TLS_BINDING_END_POINT, got, &n, fresh()));
            ck_assert_mem_eq(got, first, n);
            ASSERT_ERR(HS_E_INVALID,
                       hs_conn_tls_binding(p.server, HS_TLS_BINDING_END_POINT, got, &n, fresh()));
            bind_both(&p, HS_TLS_BINDING_EXPORTER, got, &n);
        }
        tls_pair_free(&p);
    }
    hs_tls_config_unref(client);
    hs_tls_config_unref(server);
}
END_TEST

START_TEST(a_signature_without_a_hash_has_no_end_point)
{
    struct made *leaf = cert_make(
        &(struct cert_spec){.cn = "a.example", .names = "DNS:a.example", .kind = KEY_ED25519});
    struct hs_tls_identity id = identity(leaf);
    struct hs_tls_options o = client_options(), so = server_options();
    struct hs_tls_source ca = pem(leaf->chain);
    struct hs_error err = {0};
    uint8_t got[HS_TLS_BINDING_MAX];
    struct tls_pair p;
    size_t n;

    so.identities = &id;
    so.n_identities = 1;
    o.cas = &ca;
    o.n_cas = 1;
    p = shaken_pair(false, config_of(&o), config_of(&so));
    ASSERT_ERR(HS_E_INVALID,
               hs_conn_tls_binding(p.client, HS_TLS_BINDING_END_POINT, got, &n, &err));
    ck_assert_msg(strstr(err.msg, "Ed25519") != NULL, "%s", err.msg);
    bind_both(&p, HS_TLS_BINDING_EXPORTER, got, &n);
    tls_pair_free(&p);
    cert_free(leaf);
}
END_TEST

/* RFC 9266 section 4.2, RFC 7627 section 5.4 */
START_TEST(tls_1_2_without_the_extended_master_secret_derives_nothing)
{
    struct tls_pair p = plain_pair(false);
    struct hs_tls_options o = client_options();
    struct shaking a = {.c = p.client, .name = "a.example", .rv = HS_WANT};
    const struct hs_tls_exported what = {.label = label, .label_len = strlen(label)};
    SSL_CTX *ctx = raw_context(true);
    uint8_t got[HS_TLS_BINDING_MAX];
    SSL *raw;
    size_t n;
    int fd;

    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    only_version(&o, HS_TLS_1_2);
    a.config = config_of(&o);
    ASSERT_OK(hs_conn_detach(p.server, fresh(), &fd));
    raw = raw_new(ctx, fd, true);
    shake_raw(&a, raw);
    ASSERT_OK(a.rv);
    ASSERT_ERR(HS_E_INVALID, hs_conn_tls_export(p.client, &what, got, 32, fresh()));
    ASSERT_ERR(HS_E_INVALID,
               hs_conn_tls_binding(p.client, HS_TLS_BINDING_EXPORTER, got, &n, fresh()));
    ASSERT_OK(hs_conn_tls_binding(p.client, HS_TLS_BINDING_END_POINT, got, &n, fresh()));
    raw_free(raw);
    SSL_CTX_free(ctx);
    hs_tls_config_unref(a.config);
    tls_pair_free(&p);
}
END_TEST

START_TEST(what_cannot_be_derived_is_refused)
{
    const struct hs_tls_exported own = {.label = "client finished", .label_len = 15};
    const struct hs_tls_exported what = {.label = label, .label_len = strlen(label)};
    struct tls_pair p = plain_pair(false);
    static uint8_t out[20000];
    uint8_t got[HS_TLS_BINDING_MAX];
    size_t n;

    ASSERT_ERR(HS_E_INVALID, hs_conn_tls_export(p.client, &what, out, 32, fresh()));
    ASSERT_ERR(HS_E_INVALID,
               hs_conn_tls_binding(p.client, HS_TLS_BINDING_EXPORTER, got, &n, fresh()));
    tls_pair_free(&p);
    p = default_pair(false, HS_TLS_1_3);
    memset(out, 7, sizeof(out));
    ASSERT_ERR(HS_E_INVALID, hs_conn_tls_export(p.client, &what, out, sizeof(out), fresh()));
    for (size_t i = 0; i < sizeof(out); i++)
        ck_assert_int_eq(out[i], 7);
    carry(p.client, p.server, "fine", 4);
    tls_pair_free(&p);
    p = default_pair(false, HS_TLS_1_2);
    ASSERT_ERR(HS_E_INVALID, hs_conn_tls_export(p.client, &own, out, 32, fresh()));
    carry(p.client, p.server, "fine", 4);
    tls_pair_free(&p);
}
END_TEST

START_TEST(nothing_is_derived_from_what_has_failed)
{
    struct tls_pair p = default_pair(false, HS_TLS_1_3);
    struct hs_op op = op_in(10 * SECOND);
    uint8_t got[HS_TLS_BINDING_MAX], byte;
    size_t n;

    hs_conn_close(p.server, true);
    ASSERT_ERR(HS_E_TRUNCATED, DONE(hs_conn_recv(p.client, &op, &byte, 1, 0, fresh(), &n)));
    for (int kind = HS_TLS_BINDING_END_POINT; kind <= HS_TLS_BINDING_EXPORTER; kind++)
        ASSERT_ERR(HS_E_INVALID,
                   hs_conn_tls_binding(p.client, (enum hs_tls_binding)kind, got, &n, fresh()));
    tls_pair_free(&p);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls export");

    tls_world();
    tcase_add_loop_test(tc, both_ends_derive_the_same_and_nobody_else, 0, 2);
    tcase_add_loop_test(tc, openssl_derives_the_same, 0, 2);
    tcase_add_loop_test(tc, the_end_point_is_the_hash_of_the_servers_certificate, 0, 2);
    tcase_add_test(tc, the_inner_layer_is_the_one_that_counts);
    tcase_add_loop_test(tc, a_server_that_has_resumed_knows_no_end_point, 0, 2);
    tcase_add_test(tc, a_signature_without_a_hash_has_no_end_point);
    tcase_add_test(tc, tls_1_2_without_the_extended_master_secret_derives_nothing);
    tcase_add_test(tc, what_cannot_be_derived_is_refused);
    tcase_add_test(tc, nothing_is_derived_from_what_has_failed);
    return run_case(tc);
}
