/* SPDX-License-Identifier: MIT
 *
 * Words that have gone out of use, and mean what they did (spec: config.md
 * 4.1):
 *
 *   --nvme SPEC[,ro]                a controller called nvme, and its disk
 *   --nvme SPEC,pcie_port=P[,ro]    the same, called P, at that port
 *
 * One more of the same port is one more disk of the same controller. Settings
 * files are younger, and do not have them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "settings_private.h"

enum { DISK, RO, PORT, DVD, VTL2, UH, UH_NVME, ON, NSID, LUN, RELAY };

static const struct st_option old_nvme_table[] = {
    [DISK] = {"disk", ST_OPTION_DISK, true, 0},
    [RO] = {"ro", ST_OPTION_FLAG, false, 0},
    [PORT] = {"pcie_port", ST_OPTION_VALUE, false, 0},
    [DVD] = {"dvd", ST_OPTION_FLAG, false, 0},
    [VTL2] = {"vtl2", ST_OPTION_FLAG, false, 0},
    [UH] = {"uh", ST_OPTION_FLAG, false, 0},
    [UH_NVME] = {"uh-nvme", ST_OPTION_FLAG, false, 0},
    [ON] = {"on", ST_OPTION_VALUE, false, 0},
    [NSID] = {"nsid", ST_OPTION_VALUE, false, 0},
    [LUN] = {"lun", ST_OPTION_VALUE, false, 0},
    [RELAY] = {"relay", ST_OPTION_VALUE, false, 0},
    {0},
};

static int
old_nvme_judge(const char *const *value, struct st_err *err)
{
    for (unsigned i = ON; i <= RELAY; i++)
        if (value[i])
            return st_err_set(err, EINVAL, "%s= is of --disk",
                              old_nvme_table[i].name);
    if (value[DVD])
        return st_err_set(err, EINVAL, "a DVD cannot be a namespace of NVMe");
    for (unsigned i = VTL2; i <= UH_NVME; i++)
        if (value[i])
            return st_err_set(err, EINVAL,
                              "there is no VTL2 here, leave %s "
                              "out",
                              old_nvme_table[i].name);
    return 0;
}

/* The controller ID, made by the first that names it. */
static int
old_nvme_controller(struct st_settings *s, const char *where, const char *id,
                    const char *port, struct st_err *err)
{
    const char *value[ST_OPTIONS_MAX] = {
        [NVME_ID] = id, [NVME_PCIE_PORT] = port};
    int rc;

    for (unsigned i = 0; i < s->nnvme; i++)
        if (s->nvme[i].old && strcmp(s->nvme[i].id, id) == 0 &&
            !s->nvme[i].port == !port)
            return 0;
    rc = settings_take_nvme(s, where, value, err);
    if (rc == 0)
        s->nvme[s->nnvme - 1].old = true;
    return rc;
}

/* The first one is told what to say instead. */
static int
old_nvme_notice(struct st_settings *s, const char *where, const char *id,
                const char *const *value)
{
    const char *port = value[PORT];
    char *text = NULL;

    if (s->notice)
        return 0;
    if (asprintf(&text,
                 "%s is deprecated, use --nvme-pci id=%s%s%s --disk "
                 "'%s,on=%s%s'",
                 where, id, port ? ",pcie_port=" : "", port ? port : "",
                 value[DISK], id, value[RO] ? ",ro" : "") < 0)
        text = NULL;
    s->notice = settings_keep(s, text);
    return s->notice ? 0 : -ENOMEM;
}

int
st_settings_old_nvme(struct st_settings *s, const char *text,
                     struct st_err *err)
{
    const char *const *value;
    const char *where, *id;
    struct st_attach *a;
    int rc =
        settings_parse(s, "--nvme", text, old_nvme_table, &value, &where, err);

    if (rc < 0)
        return rc;
    id = value[PORT] ? value[PORT] : "nvme";
    rc = old_nvme_judge(value, err);
    if (rc == 0)
        rc = old_nvme_controller(s, where, id, value[PORT], err);
    if (rc < 0) {
        st_err_prefix(err, "%s", where);
        return rc;
    }
    a = settings_new_disk(s);
    if (!a || old_nvme_notice(s, where, id, value) < 0)
        return st_err_set(err, ENOMEM, "no memory");
    a->where = where;
    a->spec = value[DISK];
    a->name = "";
    a->read_only = value[RO];
    a->n = 1;
    a->at[0].on = id;
    return 0;
}
