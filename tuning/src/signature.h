/* signature.h: profiles signed with ssh-keygen(1).
 *
 * A fleet that names its signers in a file (ALLOWED SIGNERS of ssh-keygen) takes no other profile
 * than those and the built-in ones. The program that signs is the one that verifies: this tool
 * holds no cryptography of its own.
 */
#ifndef TUNE_SIGNATURE_H
#define TUNE_SIGNATURE_H

#include "tune.h"

#define SIGNERS_FILE "/etc/hardsock/allowed_signers"
#define SIGNATURE_NAMESPACE "hardsock-tune-profile"

struct blob {
    const void *data;
    size_t len;
};

/* Who signed the text, by the name in the list of signers; or NULL with a reason. */
const char *signature_verify(const struct blob *signers, const struct blob *signature,
                             const struct blob *text, const char **ret_why);

#endif
