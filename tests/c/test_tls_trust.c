/* test_tls_trust.c: whom a client trusts that was told nobody: the system, wherever it keeps that.
 *
 * In a mount namespace of our own, in which the places are empty but for what a test puts there.
 */
#include "support_tls.h"

#include <errno.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void
make_folder_of(const char *path)
{
    char folder[256];

    (void)snprintf(folder, sizeof(folder), "%s", path);
    for (char *at = strchr(folder + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(folder, 0755);
        *at = '/';
    }
}

static void
put_file(const char *path, const char *text)
{
    FILE *file;

    make_folder_of(path);
    ck_assert_msg((file = fopen(path, "we")) != NULL, "%s", path);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* As c_rehash would. */
static void
put_hashed(const char *folder, const char *text)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s/%08lx.0", folder,
                   X509_NAME_hash_ex(X509_get_subject_name(world.root->cert), NULL, NULL, NULL));
    put_file(path, text);
}

/* The one that wheels have is told of a place that is nowhere (packaging/static_libs.py). */
static bool
openssl_has_a_place(void)
{
    return access(X509_get_default_cert_area(), F_OK) == 0;
}

/* False: this machine does not let us. */
static bool
enter_a_system_that_trusts_nobody(void)
{
    const char *const places[] = {"/etc", "/var/lib", X509_get_default_cert_area()};
    size_t n = openssl_has_a_place() ? 3 : 2;

    if (!enter_namespace("", ""))
        return false;
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(mount("none", places[i], "tmpfs", 0, NULL) == 0, "%s", places[i]);
    (void)unsetenv(X509_get_default_cert_file_env());
    (void)unsetenv(X509_get_default_cert_dir_env());
    return true;
}

static struct hs_tls_options
trusting_client(void)
{
    struct hs_tls_options o = client_options();

    o.cas = NULL;
    o.n_cas = 0;
    o.system_ca = true;
    return o;
}

static void
assert_trusts_root(void)
{
    struct hs_tls_options client = trusting_client(), server = server_options();
    struct tls_pair p = shaken_pair(false, config_of(&client), config_of(&server));

    tls_pair_free(&p);
}

static void
assert_trusts_nobody(const char *place)
{
    struct hs_tls_options client = trusting_client();
    struct hs_tls_config *config = NULL;

    ASSERT_ERR(HS_E_TLS, hs_tls_config_new(&client, fresh(), &config));
    ck_assert_ptr_null(config);
    ck_assert_int_eq(last_error()->tls, HS_TLS_LOCAL);
    ck_assert_msg(strstr(last_error()->msg, place) != NULL, "%s is not in %s", place,
                  last_error()->msg);
}

START_TEST(a_system_that_trusts_nobody_is_an_error_that_names_the_places)
{
    if (!enter_a_system_that_trusts_nobody())
        return;
    assert_trusts_nobody("(SSL_CERT_FILE is not set)");
    assert_trusts_nobody("(SSL_CERT_DIR is not set)");
    assert_trusts_nobody(X509_get_default_cert_file());
    assert_trusts_nobody(X509_get_default_cert_dir());
    assert_trusts_nobody("nor a bundle in /etc/ssl, /etc/pki or /var/lib");
    put_file("/etc/ssl/certs/README", "no certificate");
    put_file("/etc/ssl/cert.pem", "neither");
    assert_trusts_nobody("give ca=");
}
END_TEST

static const char *const bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
};

START_TEST(bundles_of_other_distributions_are_found)
{
    if (!enter_a_system_that_trusts_nobody())
        return;
    put_file(bundles[_i], world.root->chain);
    if (_i > 0) /* The damaged one is passed over. */
        put_file(bundles[0], "-----BEGIN CERTIFICATE-----\nbad\n-----END CERTIFICATE-----\n");
    assert_trusts_root();
}
END_TEST

START_TEST(the_places_of_openssl_are_enough)
{
    if (!openssl_has_a_place() || !enter_a_system_that_trusts_nobody())
        return;
    if (_i == 0)
        put_file(X509_get_default_cert_file(), world.root->chain);
    else
        put_hashed(X509_get_default_cert_dir(), world.root->chain);
    assert_trusts_root();
}
END_TEST

START_TEST(a_place_that_was_set_counts_alone)
{
    if (!enter_a_system_that_trusts_nobody())
        return;
    put_file(bundles[0], world.root->chain);
    ck_assert_int_eq(setenv("SSL_CERT_FILE", "/etc/own.pem", 1), 0);
    assert_trusts_nobody("/etc/own.pem (SSL_CERT_FILE)");
    put_file("/etc/own.pem", "no certificate");
    assert_trusts_nobody("/etc/own.pem (SSL_CERT_FILE)");
    put_file("/etc/own.pem", world.root->chain);
    assert_trusts_root();
    ck_assert_int_eq(unsetenv("SSL_CERT_FILE"), 0);

    ck_assert_int_eq(setenv("SSL_CERT_DIR", "/etc/none:/etc/own", 1), 0);
    assert_trusts_nobody("/etc/none:/etc/own (SSL_CERT_DIR)");
    put_file("/etc/own/root.pem", world.root->chain); /* not under the name of its hash */
    assert_trusts_nobody("/etc/none:/etc/own (SSL_CERT_DIR)");
    put_hashed("/etc/own", world.root->chain);
    assert_trusts_root();
}
END_TEST

START_TEST(what_cannot_be_looked_at_is_not_taken_for_empty)
{
    struct hs_tls_source folder = {.path = "/etc/own"};
    struct hs_tls_options client = trusting_client();
    struct hs_tls_config *config = NULL;
    struct rlimit before, none = {0};

    if (!enter_a_system_that_trusts_nobody())
        return;
    put_hashed("/etc/own", world.root->chain);
    if (openssl_has_a_place())
        put_hashed(X509_get_default_cert_dir(), world.root->chain);
    if (_i == 1) {
        client = client_options();
        client.cas = &folder;
    }
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none.rlim_max = before.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    ASSERT_ERR(HS_E_SYSTEM, hs_tls_config_new(&client, fresh(), &config));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(last_error()->sys, EMFILE);
    ck_assert_ptr_null(config);
}
END_TEST

START_TEST(a_directory_without_hashed_names_trusts_nobody_and_is_refused)
{
    static const char *const names[] = {"root.pem",    "0123456.0",   "012345678.0",
                                        "01234567.r0", "01234567.0x", "01234567."};
    struct hs_tls_source folder = {.path = "/etc/own"};
    struct hs_tls_options client = client_options();
    struct hs_tls_config *config = NULL;
    char path[64];

    if (!enter_a_system_that_trusts_nobody())
        return;
    for (size_t i = 0; i < LENGTH(names); i++) {
        (void)snprintf(path, sizeof(path), "/etc/own/%s", names[i]);
        put_file(path, world.root->chain);
    }
    ck_assert_int_eq(symlink("/etc/nowhere", "/etc/own/01234567.0"), 0);
    client.cas = &folder;
    ASSERT_ERR(HS_E_INVALID, hs_tls_config_new(&client, fresh(), &config));
    ck_assert_ptr_nonnull(strstr(last_error()->msg, "ca: directory /etc/own"));
    ck_assert_ptr_null(config);
    put_hashed("/etc/own", world.root->chain);
    ASSERT_OK(hs_tls_config_new(&client, fresh(), &config));
    hs_tls_config_unref(config);
}
END_TEST

int
main(void)
{
    TCase *tc = case_new("tls trust");

    tls_world();
    tcase_add_test(tc, a_system_that_trusts_nobody_is_an_error_that_names_the_places);
    tcase_add_loop_test(tc, bundles_of_other_distributions_are_found, 0, LENGTH(bundles));
    tcase_add_loop_test(tc, the_places_of_openssl_are_enough, 0, 2);
    tcase_add_test(tc, a_place_that_was_set_counts_alone);
    tcase_add_loop_test(tc, what_cannot_be_looked_at_is_not_taken_for_empty, 0, 2);
    tcase_add_test(tc, a_directory_without_hashed_names_trusts_nobody_and_is_refused);
    return run_case(tc);
}
