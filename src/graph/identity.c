/* SPDX-License-Identifier: MIT
 *
 * Identities that follow from names; see identity.h.
 *
 * By the digest itself: EVP would have OpenSSL set up its providers, which are
 * three MiB of every process that has a controller.
 */
#define OPENSSL_API_COMPAT 0x10100000L

#include "identity.h"

#include <assert.h>
#include <errno.h>
#include <openssl/sha.h>
#include <string.h>

int
st_identity(const char *name, struct st_guid *out)
{
    /* a3f1e2d4-5b6c-4a8d-9e0f-1234567890ab */
    static const struct st_guid space = {{0xd4, 0xe2, 0xf1, 0xa3, 0x6c, 0x5b,
                                          0x8d, 0x4a, 0x9e, 0x0f, 0x12, 0x34,
                                          0x56, 0x78, 0x90, 0xab}};
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX ctx;

    if (!SHA256_Init(&ctx) || !SHA256_Update(&ctx, space.b, sizeof(space.b)) ||
        !SHA256_Update(&ctx, name, strlen(name)) ||
        !SHA256_Final(digest, &ctx))
        return -EIO;
    memcpy(out->b, digest, sizeof(out->b));
    out->b[7] = (uint8_t)(0x80 | (out->b[7] & 0x0f)); /* data3's top nibble */
    out->b[8] = (uint8_t)(0x80 | (out->b[8] & 0x3f));
    return 0;
}
