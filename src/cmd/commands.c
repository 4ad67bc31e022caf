/* SPDX-License-Identifier: MIT
 *
 * The table of commands, and what this strata was built with; see cmd.h.
 */
#include <openssl/crypto.h>

#include "cmd.h"
#include "version.h"

const struct st_cmd *const st_cmd_all[] = {
    &st_cmd_run_machine, &st_cmd_nbd,   &st_cmd_serve,
    &st_cmd_info,        &st_cmd_bench, &st_cmd_completion,
    &st_cmd_ctl,         &st_cmd_top,   NULL,
};

void
st_cmd_version(FILE *out)
{
    fprintf(out, "strata %s (", ST_VERSION);
#ifdef ST_HAVE_URING
    fputs("io_uring, ", out);
#endif
    fputs("threads, ", out);
#ifdef ST_HAVE_SYSTEMD
    fputs("systemd, ", out);
#endif
    /* That of the library in memory, not of its headers. */
    fprintf(out, "openssl %s)\n", OpenSSL_version(OPENSSL_VERSION_STRING));
}
