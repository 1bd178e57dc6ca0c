/* tls_fault.c: what OpenSSL would have in its queue. See tls_fault.h.
 *
 * Owns nothing.
 */
#include "tls_fault.h"

#include <openssl/err.h>

bool
hs_tls_fault_raise(enum hs_call call)
{
    int fault = hs_fault_decide(call, NULL);

    if (fault == 0)
        return false;
    ERR_raise(ERR_LIB_SSL, fault == HS_FAULT_ALERT ? SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE
                           : fault == HS_FAULT_BAD_RECORD
                               ? SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC
                               : ERR_R_INTERNAL_ERROR);
    return true;
}
