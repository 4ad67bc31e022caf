/* SPDX-License-Identifier: MIT
 *
 * Verbs about a controller itself: fault, release, save, restore. A state is
 * bytes; where it is text, in a request or its answer, it is base64 (RFC 4648,
 * with its padding).
 */
#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "graph_private.h"

/* ---- Fault rules ---- */

int
st_graph_faults(struct st_graph *g, const char *controller, const char *text,
                struct st_err *err)
{
    bool any = false;
    int rc = 0;

    st_list_for(c, next, &g->controllers, struct graph_controller, link)
    {
        if (rc < 0 || (controller && strcmp(c->name, controller) != 0))
            continue;
        any = true;
        rc = st_nvme_set_faults(c->pub.nvme, text, err);
    }
    if (!any)
        return controller
                   ? st_err_set(err, ENOENT, "no controller '%s'", controller)
                   : st_err_set(err, ENOENT, "there is no controller");
    return rc;
}

void
graph_fault(struct st_graph_edit *e)
{
    graph_end(e, st_graph_faults(e->graph, e->text[1], e->text[0], &e->err));
}

void
graph_release(struct st_graph_edit *e)
{
    struct graph_controller *only = NULL;

    if (e->text[0] && !(only = graph_verb_controller(e, e->text[0])))
        return;
    st_list_for(c, next, &e->graph->controllers, struct graph_controller, link)
    {
        if (!only || c == only)
            st_nvme_release_faults(c->pub.nvme);
    }
    graph_end(e, 0);
}

/* ---- Bytes as text ---- */

/* Gives text, or NULL: no memory, or too much. */
static char *
encode(const void *bytes, size_t len)
{
    char *text = len < INT_MAX / 2 ? malloc((len + 2) / 3 * 4 + 1) : NULL;

    if (text)
        EVP_EncodeBlock((unsigned char *)text, bytes, (int)len);
    return text;
}

/* 0 and bytes (given), -EINVAL or -ENOMEM. */
static int
decode(const char *text, void **out, size_t *len)
{
    size_t n = strlen(text), padding = 0;
    unsigned char *bytes;

    while (padding < 2 && padding < n && text[n - 1 - padding] == '=')
        padding++;
    /* The library takes spaces around it, and '=' anywhere. */
    if (!n || n % 4 || n > INT_MAX / 2 ||
        strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                     "0123456789+/") != n - padding)
        return -EINVAL;
    bytes = malloc(n / 4 * 3);
    if (!bytes)
        return -ENOMEM;
    if (EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n) < 0) {
        free(bytes);
        return -EINVAL;
    }
    *out = bytes;
    *len = n / 4 * 3 - padding;
    return 0;
}

/* ---- Save and restore ---- */

static void
saved(struct st_nvme_call *call, int rc)
{
    struct graph_op *op = st_container(call, struct graph_op, call);

    if (rc == 0) {
        op->answer = encode(op->blob, op->blob_len);
        rc = op->answer ? 0 : -ENOMEM;
    } else {
        op->err = call->err;
    }
    graph_op_end(op, rc);
}

void
graph_save(struct st_graph_edit *e)
{
    struct graph_controller *c = graph_verb_controller(e, e->text[0]);
    struct graph_op *op = c ? graph_op_new(e, NULL, GRAPH_GOES_ON) : NULL;

    if (!op)
        return;
    op->call.done = saved;
    /* A little earlier than the edit: the controller's sentence is better. */
    st_nvme_save(c->pub.nvme, graph_left_ns(e) / 10 * 9, &op->blob,
                 &op->blob_len, &op->call);
}

static void
restored(struct st_nvme_call *call, int rc)
{
    struct graph_op *op = st_container(call, struct graph_op, call);

    if (rc < 0)
        op->err = call->err;
    graph_op_end(op, rc);
}

void
graph_restore(struct st_graph_edit *e)
{
    struct graph_controller *c = graph_verb_controller(e, e->text[0]);
    void *blob = NULL;
    struct graph_op *op;
    size_t len = 0;
    int rc;

    if (!c)
        return;
    rc = decode(e->text[1], &blob, &len);
    if (rc < 0) {
        graph_fail(e, -rc,
                   rc == -EINVAL ? "restore: the state is not base64"
                                 : "restore: no memory");
        return;
    }
    op = graph_op_new(e, NULL, GRAPH_GOES_ON);
    if (!op) {
        free(blob);
        return;
    }
    op->blob = blob;
    op->blob_len = len;
    op->call.done = restored;
    st_nvme_restore(c->pub.nvme, blob, len, &op->call);
}
