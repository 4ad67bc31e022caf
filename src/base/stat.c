/* SPDX-License-Identifier: MIT
 *
 * Counters and latency histograms; see stat.h.
 */
#include "stat.h"

void
st_hist_merge(struct st_hist *to, const struct st_hist *from)
{
    for (unsigned i = 0; i < ST_HIST_BUCKETS; i++)
        st_count(&to->bucket[i], st_counter_get(&from->bucket[i]));
    st_count(&to->sum, st_counter_get(&from->sum));
}

uint64_t
st_hist_total(const struct st_hist *h)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < ST_HIST_BUCKETS; i++)
        total += st_counter_get(&h->bucket[i]);
    return total;
}

uint64_t
st_hist_quantile(const struct st_hist *h, double q)
{
    uint64_t total = st_hist_total(h), seen = 0;

    for (unsigned i = 0; i < ST_HIST_BUCKETS; i++) {
        seen += st_counter_get(&h->bucket[i]);
        if (seen && (double)seen >= q * (double)total)
            return i ? UINT64_C(1) << i : 0;
    }
    return 0;
}
