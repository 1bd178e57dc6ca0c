/* tls_trust.c: the authorities that the system trusts, wherever it keeps them.
 *
 * OpenSSL knows the places of the system that it was built for: with a wheel, or in a slim
 * container, they may not be there. It says nothing then, and each handshake fails with an unknown
 * issuer. So what it found is looked at, other distributions' bundles are tried, and that nobody is
 * trusted is an error.
 */
#include "tls_context_impl.h"

#include "../base/err.h"
#include "../base/sys.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch, Gentoo */
    "/etc/pki/tls/certs/ca-bundle.crt",                  /* Fedora, RHEL */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* the same, newer */
    "/etc/ssl/ca-bundle.pem",                            /* SUSE */
    "/etc/ssl/cert.pem",                                 /* Alpine */
    "/var/lib/ca-certificates/ca-bundle.pem",            /* SUSE, newer */
};
#define N_BUNDLES (sizeof(bundles) / sizeof(bundles[0]))

static bool
holds_certificates(X509_STORE *store)
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);

    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++)
        if (X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i)) != NULL)
            return true;
    return false;
}

/* Of a list as PATH has it; -errno if it cannot be known. */
static int
one_is_hashed(const char *list)
{
    char one[PATH_MAX];
    int found = 0;

    while (found == 0 && *list != '\0') {
        size_t n = strcspn(list, ":");

        (void)snprintf(one, sizeof(one), "%.*s", (int)n, list);
        found = hs_tls_is_hashed(one);
        if (found == -ENOENT || found == -ENOTDIR || found == -EACCES)
            found = 0;
        list += n + (list[n] == ':');
    }
    return found;
}

/* One that is damaged, or cannot be read, is none. */
static bool
load_bundle(X509_STORE *store)
{
    for (size_t i = 0; i < N_BUNDLES; i++) {
        struct hs_tls_source source = {.path = bundles[i]};
        struct stat st;

        if (hs_sys_stat(bundles[i], &st) == 0 && S_ISREG(st.st_mode) &&
            hs_tls_load_cas(store, &source, NULL) == HS_OK)
            return true;
    }
    return false;
}

static hs_err
trusts_nobody(const char *file, const char *dirs, struct hs_error *err)
{
    bool told = file != NULL || dirs != NULL;
    hs_err rv = hs_err_setx(
        err, HS_E_TLS, "tls",
        "ca: nobody is trusted: no certificate in %.50s (SSL_CERT_FILE%s), %.50s "
        "(SSL_CERT_DIR%s)%s; install ca-certificates or give ca=",
        file != NULL ? file : X509_get_default_cert_file(), file != NULL ? "" : " is not set",
        dirs != NULL ? dirs : X509_get_default_cert_dir(), dirs != NULL ? "" : " is not set",
        told ? "" : ", nor a bundle in /etc/ssl, /etc/pki or /var/lib");

    if (err != NULL && err->code == rv)
        err->tls = HS_TLS_LOCAL;
    return rv;
}

hs_err
hs_tls_trust_system(X509_STORE *store, struct hs_error *err)
{
    const char *file = secure_getenv(X509_get_default_cert_file_env()); /* as OpenSSL asks */
    const char *dirs = secure_getenv(X509_get_default_cert_dir_env());
    bool told = file != NULL || dirs != NULL;
    int found = 0;

    if (!X509_STORE_set_default_paths(store)) {
        ERR_clear_error();
        return hs_err_setx(err, HS_E_NOMEM, "tls", "ca: no memory");
    }
    ERR_clear_error();
    if (holds_certificates(store) ||
        (found = one_is_hashed(dirs != NULL ? dirs : X509_get_default_cert_dir())) > 0)
        return HS_OK;
    if (found < 0)
        return hs_err_set(err, HS_E_SYSTEM, -found, "tls", "ca: cannot read the system's");
    /* What somebody has set is not made good by what others trust. */
    if (!told && load_bundle(store))
        return HS_OK;
    return trusts_nobody(file, dirs, err);
}
