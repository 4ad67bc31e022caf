/* SPDX-License-Identifier: MIT
 *
 * Any text as what `strata serve` can be told: a settings file, or by the first
 * byte n, b, d, o the words of --nvme-pci, --nbd, --disk, --nvme. Nothing is
 * opened.
 */
#include <stdlib.h>
#include <string.h>

#include "settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct st_cmd_option table[] = {
    {"threads", ST_CMD_NUMBER, "N", "", 0, 0, 64},
    {"engine", ST_CMD_WORD, "auto|io_uring|threads", "", 0, 0, 0},
    {"api", ST_CMD_TEXT, "PATH", "", 0, 0, 0},
    {"bios", ST_CMD_MAYBE, "FILE", "", 0, 0, 0},
    {"no-sandbox", ST_CMD_FLAG, NULL, "", 0, 0, 0},
    {"disk", ST_CMD_MANY, "SPEC", "", 0, 0, 0},
    {0},
};

/* What was taken is what its users count on. */
static void
look(const struct st_settings *s)
{
    for (unsigned i = 0; i < s->nnvme; i++)
        if (!*s->nvme[i].id || !*s->nvme[i].where ||
            s->nvme[i].opts.queues > ST_NVME_QUEUES_MAX ||
            strlen(s->nvme[i].address.path) >= sizeof(s->nvme[i].address.path))
            abort();
    for (unsigned i = 0; i < s->nnbd; i++)
        if (!*s->nbd[i].id || !*s->nbd[i].where)
            abort();
    for (unsigned i = 0; i < s->ndisks; i++) {
        const struct st_attach *a = &s->disk[i];

        if (!*a->spec || !a->name || !*a->where || !a->n ||
            a->n > ST_ATTACH_MAX)
            abort();
        for (unsigned k = 0; k < a->n; k++)
            if (!*a->at[k].on || a->at[k].nsid == UINT32_MAX)
                abort();
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    struct st_cmd_args args = {0};
    struct st_settings s = {0};
    struct st_err err = {""};
    int rc;

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    switch (*text) {
    case 'n':
        rc = st_settings_nvme(&s, text + 1, &err);
        break;
    case 'b':
        rc = st_settings_nbd(&s, text + 1, &err);
        break;
    case 'd':
        rc = st_settings_disk(&s, text + 1, &err);
        break;
    case 'o':
        s.machine = true;
        rc = st_settings_old_nvme(&s, text + 1, &err);
        break;
    default:
        rc = st_settings_text(&s, text, size, "f", table, &args, &err);
    }
    if (rc == 0) {
        look(&s);
        rc = st_settings_check(&s, &err);
    }
    if (rc < 0 && !*err.text)
        abort(); /* every failure has its sentence */
    st_settings_free(&s);
    free(text);
    return 0;
}
