/* tls_load.c: certificates, keys and revocation lists out of files and memory, PEM or DER.
 *
 * Errors name the parameter and the file. Nothing found in a source is an error: an empty file of
 * authorities would trust nobody, which is never what was meant.
 */
#include "tls_context_impl.h"

#include "tls_error.h"
#include "../base/err.h"
#include "../base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As c_rehash names certificates: eight hexadecimal digits, a dot, a number. */
static bool
is_hashed_name(const char *name)
{
    size_t digits = strspn(name, "0123456789abcdefABCDEF"), number;

    if (digits != 8 || name[8] != '.')
        return false;
    number = strspn(name + 9, "0123456789");
    return number > 0 && name[9 + number] == '\0';
}

int
hs_tls_is_hashed(const char *path)
{
    DIR *dir = hs_sys_opendir(path);
    const struct dirent *entry;
    int found = 0;

    if (dir == NULL)
        return -errno;
    while (found == 0) {
        errno = 0; /* The end of a directory and a failure look the same. */
        if ((entry = hs_sys_readdir(dir)) == NULL) {
            found = -errno;
            break;
        }
        found = is_hashed_name(entry->d_name) &&
                hs_sys_faccessat(dirfd(dir), entry->d_name, R_OK, 0) == 0;
    }
    (void)closedir(dir);
    return found;
}

#define MAX_STAPLE ((size_t)65536)

static const char *
name_of(const struct hs_tls_source *source)
{
    return source->path != NULL ? source->path : "(bytes)";
}

/* Adds all of a file. By our own calls: OpenSSL takes a file that cannot be read on for one that
 * ends there, and would trust the half of a list. */
static hs_err
fill(BIO *bio, int fd, const struct hs_tls_source *source, const char *what, struct hs_error *err)
{
    uint8_t piece[16384];
    size_t len = 0;
    ssize_t n;
    hs_err rv = HS_OK;

    while (rv == HS_OK && (n = hs_sys_read(fd, piece, sizeof(piece))) != 0) {
        if (n < 0 && errno != EINTR)
            rv = hs_err_set(err, HS_E_SYSTEM, errno, "tls", "%s: cannot read %.120s", what,
                            source->path);
        else if (n > 0 && (len += (size_t)n) > INT32_MAX)
            rv = hs_err_setx(err, HS_E_INVALID, "tls", "%s: %.120s has too many bytes", what,
                             source->path);
        else if (n > 0 && BIO_write(bio, piece, (int)n) != n)
            rv = hs_err_setx(err, HS_E_NOMEM, "tls", "%s: no memory", what);
    }
    OPENSSL_cleanse(piece, sizeof(piece)); /* It may be a private key. */
    return rv;
}

static hs_err
open_file(const struct hs_tls_source *source, const char *what, struct hs_error *err, BIO **ret_bio)
{
    int fd = hs_sys_open(source->path, O_RDONLY | O_CLOEXEC, 0);
    BIO *bio;
    hs_err rv;

    if (fd < 0)
        return hs_err_set(err, HS_E_SYSTEM, errno, "tls", "%s: cannot read %.120s", what,
                          source->path);
    if ((bio = BIO_new(BIO_s_mem())) == NULL) {
        rv = hs_err_setx(err, HS_E_NOMEM, "tls", "%s: no memory", what);
    } else {
        (void)BIO_set_mem_eof_return(bio, 0);
        BIO_set_flags(bio, BIO_FLAGS_NONCLEAR_RST); /* BIO_reset() goes back to its beginning. */
        rv = fill(bio, fd, source, what, err);
    }
    (void)close(fd);
    if (rv == HS_OK)
        *ret_bio = bio;
    else
        BIO_free(bio);
    return rv;
}

static hs_err
open_source(const struct hs_tls_source *source, const char *what, struct hs_error *err,
            BIO **ret_bio)
{
    BIO *bio;

    ERR_clear_error();
    if (source->path != NULL)
        return open_file(source, what, err, ret_bio);
    if (source->len > INT32_MAX)
        return hs_err_setx(err, HS_E_INVALID, "tls", "%s: too many bytes", what);
    if ((bio = BIO_new_mem_buf(source->data, (int)source->len)) == NULL)
        return hs_err_setx(err, HS_E_NOMEM, "tls", "%s: no memory", what);
    *ret_bio = bio;
    return HS_OK;
}

/* The end of a PEM file is an error to OpenSSL. Anything else is one to us. */
static bool
at_end_of_pem(void)
{
    unsigned long code = ERR_peek_last_error();
    bool end = code == 0 ||
               (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE);

    ERR_clear_error();
    return end;
}

struct password {
    const char *text; /* borrows; NULL: none was given */
    bool asked;
};

/* Answers a password that was not given with a refusal, instead of asking at a terminal. */
static int
give_password(char *buf, int size, int rwflag, void *arg)
{
    struct password *password = arg;
    size_t n = password != NULL && password->text != NULL ? strlen(password->text) : 0;

    (void)rwflag;
    if (password != NULL)
        password->asked = true;
    if (n == 0 || n > (size_t)size)
        return -1;
    memcpy(buf, password->text, n); /* NOLINT(bugprone-not-null-terminated-result): by length */
    return (int)n;
}

/* ---- Whom to trust ------------------------------------------------------------------------- */

/* PEM certificates and DER ones; *ret_stack owns them. */
static hs_err
read_certificates(const struct hs_tls_source *source, const char *what, struct hs_error *err,
                  STACK_OF(X509) * *ret_stack)
{
    STACK_OF(X509) *stack = sk_X509_new_null();
    BIO *bio = NULL;
    X509 *x;
    hs_err rv = open_source(source, what, err, &bio);

    if (rv != HS_OK || stack == NULL)
        goto fail;
    while ((x = PEM_read_bio_X509(bio, NULL, give_password, NULL)) != NULL)
        if (!sk_X509_push(stack, x)) {
            X509_free(x);
            rv = hs_err_setx(err, HS_E_NOMEM, "tls", "%s: no memory", what);
            goto fail;
        }
    if (!at_end_of_pem()) {
        rv = hs_err_setx(err, HS_E_INVALID, "tls", "%s: %.150s holds a damaged certificate", what,
                         name_of(source));
        goto fail;
    }
    if (sk_X509_num(stack) == 0 && BIO_reset(bio) >= 0 && (x = d2i_X509_bio(bio, NULL)) != NULL)
        (void)sk_X509_push(stack, x);
    ERR_clear_error();
    if (sk_X509_num(stack) == 0) {
        rv = hs_err_setx(err, HS_E_INVALID, "tls", "%s: %.150s holds no certificate", what,
                         name_of(source));
        goto fail;
    }
    BIO_free(bio);
    *ret_stack = stack;
    return HS_OK;
fail:
    BIO_free(bio);
    sk_X509_pop_free(stack, X509_free);
    return rv != HS_OK ? rv : hs_err_setx(err, HS_E_NOMEM, "tls", "%s: no memory", what);
}

/* OpenSSL looks into it during a handshake, for the hash of an issuer's name. */
static hs_err
load_directory(X509_STORE *store, const char *path, struct hs_error *err)
{
    int found = hs_tls_is_hashed(path);

    if (found < 0)
        return hs_err_set(err, HS_E_SYSTEM, -found, "tls", "ca: cannot read %.120s", path);
    if (found == 0)
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "ca: directory %.100s holds no certificate under the name of its hash, "
                           "so it trusts nobody; `openssl rehash` gives such names",
                           path);
    return X509_STORE_load_path(store, path) ? HS_OK : hs_tls_config_error(err, "ca", path);
}

hs_err
hs_tls_load_cas(X509_STORE *store, const struct hs_tls_source *source, struct hs_error *err)
{
    STACK_OF(X509) * stack;
    struct stat st;
    hs_err rv;

    if (source->path != NULL && hs_sys_stat(source->path, &st) == 0 && S_ISDIR(st.st_mode))
        return load_directory(store, source->path, err);
    if ((rv = read_certificates(source, "ca", err, &stack)) != HS_OK)
        return rv;
    for (int i = 0; rv == HS_OK && i < sk_X509_num(stack); i++)
        if (!X509_STORE_add_cert(store, sk_X509_value(stack, i)))
            rv = hs_tls_config_error(err, "ca", name_of(source));
    sk_X509_pop_free(stack, X509_free);
    return rv;
}

hs_err
hs_tls_load_crls(X509_STORE *store, const struct hs_tls_source *source, struct hs_error *err)
{
    BIO *bio;
    X509_CRL *crl;
    int n = 0;
    hs_err rv = open_source(source, "crl", err, &bio);

    if (rv != HS_OK)
        return rv;
    while (rv == HS_OK && (crl = PEM_read_bio_X509_CRL(bio, NULL, give_password, NULL)) != NULL) {
        n++;
        if (!X509_STORE_add_crl(store, crl))
            rv = hs_tls_config_error(err, "crl", name_of(source));
        X509_CRL_free(crl);
    }
    if (rv == HS_OK && !at_end_of_pem())
        rv = hs_err_setx(err, HS_E_INVALID, "tls", "crl: %.150s holds a damaged revocation list",
                         name_of(source));
    if (rv == HS_OK && n == 0 && BIO_reset(bio) >= 0 &&
        (crl = d2i_X509_CRL_bio(bio, NULL)) != NULL) {
        n += X509_STORE_add_crl(store, crl) ? 1 : 0;
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    ERR_clear_error();
    if (rv == HS_OK && n == 0)
        rv = hs_err_setx(err, HS_E_INVALID, "tls", "crl: %.150s holds no revocation list",
                         name_of(source));
    return rv;
}

/* ---- Who we are ---------------------------------------------------------------------------- */

static hs_err
read_key(const struct hs_tls_source *source, const char *password, struct hs_error *err,
         EVP_PKEY **ret_key)
{
    struct password answer = {.text = password};
    EVP_PKEY *found;
    BIO *bio;
    hs_err rv = open_source(source, "key", err, &bio);

    if (rv != HS_OK)
        return rv;
    found = PEM_read_bio_PrivateKey(bio, NULL, give_password, &answer);
    if (found == NULL && !answer.asked && BIO_reset(bio) >= 0)
        found = d2i_PrivateKey_bio(bio, NULL);
    BIO_free(bio);
    if (found != NULL)
        *ret_key = found;
    else if (answer.asked)
        rv = hs_err_setx(err, HS_E_INVALID, "tls",
                         "key: %.150s is encrypted; give the right password", name_of(source));
    else
        rv = hs_err_setx(err, HS_E_INVALID, "tls", "key: %.150s holds no private key",
                         name_of(source));
    ERR_clear_error();
    return rv;
}

static bool
is_staple(const uint8_t *der, size_t len)
{
    const unsigned char *at = der;
    OCSP_RESPONSE *response = len > 0 ? d2i_OCSP_RESPONSE(NULL, &at, (long)len) : NULL;
    bool whole = response != NULL && at == der + len;

    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return whole;
}

static hs_err
read_staple(const struct hs_tls_source *source, struct hs_error *err, struct tls_identity *id)
{
    uint8_t *grown;
    BIO *bio;
    int n = 1;
    hs_err rv;

    if (source->path == NULL && source->data == NULL)
        return HS_OK;
    if ((rv = open_source(source, "ocsp_response", err, &bio)) != HS_OK)
        return rv;
    while (n > 0 && id->ocsp_len < MAX_STAPLE) {
        if ((grown = hs_sys_realloc(id->ocsp, id->ocsp_len + 4096)) == NULL)
            break;
        id->ocsp = grown;
        if ((n = BIO_read(bio, id->ocsp + id->ocsp_len, 4096)) > 0)
            id->ocsp_len += (size_t)n;
    }
    BIO_free(bio);
    if (n > 0 && id->ocsp_len < MAX_STAPLE)
        return hs_err_setx(err, HS_E_NOMEM, "tls", "ocsp_response: no memory");
    if (n > 0 || !is_staple(id->ocsp, id->ocsp_len))
        return hs_err_setx(err, HS_E_INVALID, "tls",
                           "ocsp_response: %.120s is no OCSP response in DER of 64 KiB at most",
                           name_of(source));
    return HS_OK;
}

hs_err
hs_tls_load_identity(const struct hs_tls_identity *from, struct hs_error *err,
                     struct tls_identity *ret_identity)
{
    const struct hs_tls_source *key =
        from->key.path != NULL || from->key.data != NULL ? &from->key : &from->chain;
    struct tls_identity id = {0};
    hs_err rv = read_certificates(&from->chain, "chain", err, &id.issuers);

    if (rv != HS_OK)
        return rv;
    id.leaf = sk_X509_shift(id.issuers);
    if ((rv = read_key(key, from->password, err, &id.key)) == HS_OK &&
        !X509_check_private_key(id.leaf, id.key))
        rv =
            hs_err_setx(err, HS_E_INVALID, "tls", "key: %.90s does not belong to certificate %.90s",
                        name_of(key), name_of(&from->chain));
    ERR_clear_error();
    if (rv == HS_OK)
        rv = read_staple(&from->ocsp, err, &id);
    if (rv != HS_OK)
        hs_tls_identity_fini(&id);
    else
        *ret_identity = id;
    return rv;
}

void
hs_tls_identity_fini(struct tls_identity *id)
{
    X509_free(id->leaf);
    EVP_PKEY_free(id->key);
    sk_X509_pop_free(id->issuers, X509_free);
    free(id->ocsp);
}
