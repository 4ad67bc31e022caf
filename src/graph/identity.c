/* SPDX-License-Identifier: MIT
 *
 * Identities that follow from names; see identity.h.
 */
#include "identity.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

int
st_identity(const char *name, struct st_guid *out)
{
    /* a3f1e2d4-5b6c-4a8d-9e0f-1234567890ab */
    static const struct st_guid space = {{0xd4, 0xe2, 0xf1, 0xa3, 0x6c, 0x5b,
                                          0x8d, 0x4a, 0x9e, 0x0f, 0x12, 0x34,
                                          0x56, 0x78, 0x90, 0xab}};
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(ctx, space.b, sizeof(space.b)) &&
              EVP_DigestUpdate(ctx, name, strlen(name)) &&
              EVP_DigestFinal_ex(ctx, digest, NULL);

    EVP_MD_CTX_free(ctx);
    if (!ok)
        return -ENOMEM;
    memcpy(out->b, digest, sizeof(out->b));
    out->b[7] = (uint8_t)(0x80 | (out->b[7] & 0x0f)); /* data3's top nibble */
    out->b[8] = (uint8_t)(0x80 | (out->b[8] & 0x3f));
    return 0;
}
