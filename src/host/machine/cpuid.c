/* SPDX-License-Identifier: MIT
 *
 * CPUID; see cpuid.h (Intel SDM 2A, CPUID; AMD APM 3, appendix E).
 *
 * One package of N cores with a thread each. The leaves of a hypervisor,
 * 0x400000xx, are KVM's own: its clock, its way to end an interrupt.
 */
#include "cpuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAF_FEATURES = 1,
    LEAF_CACHES = 4,
    LEAF_EXTENDED = 7,
    LEAF_TOPOLOGY = 0xb,
    LEAF_XSAVE = 0xd,
    LEAF_TOPOLOGY_2 = 0x1f,
};
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_AMD_SIZES    0x80000008u
#define LEAF_AMD_TOPOLOGY 0x8000001eu

/* Leaf 1. */
#define F1_ECX_HYPERVISOR (1u << 31)
#define F1_ECX_NOXSAVE                                                         \
    (1u << 12 /* FMA */ | 1u << 26 | 1u << 27 /* OSXSAVE */ |                  \
     1u << 28 /* AVX */ | 1u << 29 /* F16C */)
#define F1_EDX_HTT (1u << 28)

/* Leaf 7, subleaf 0: AVX2, AVX-512 in its parts, VAES, VPCLMULQDQ, PKU. */
#define F7_EBX_NOXSAVE                                                         \
    (1u << 5 | 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 |          \
     1u << 28 | 1u << 30 | 1u << 31)
#define F7_ECX_NOXSAVE                                                         \
    (1u << 1 | 1u << 3 | 1u << 4 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 11 |   \
     1u << 12 | 1u << 14)
#define F7_EDX_NOXSAVE                                                         \
    (1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25)

/* Bits that number N different things. */
static unsigned
width(unsigned n)
{
    return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

static void
shape_topology(struct kvm_cpuid_entry2 *e, unsigned id, unsigned n)
{
    unsigned shift = width(n);

    e->edx = id; /* in each subleaf */
    e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    switch (e->index) {
    case 0: /* threads of a core */
        e->eax = 0;
        e->ebx = 1;
        e->ecx = 1 << 8 | 0;
        break;
    case 1: /* cores of the package */
        e->eax = shift;
        e->ebx = n;
        e->ecx = 2 << 8 | 1;
        break;
    default:
        e->eax = e->ebx = 0;
        e->ecx = e->index;
    }
}

static void
shape_noxsave(struct kvm_cpuid_entry2 *e)
{
    switch (e->function) {
    case LEAF_FEATURES:
        e->ecx &= ~F1_ECX_NOXSAVE;
        break;
    case LEAF_EXTENDED:
        if (e->index == 0) {
            e->ebx &= ~F7_EBX_NOXSAVE;
            e->ecx &= ~F7_ECX_NOXSAVE;
            e->edx &= ~F7_EDX_NOXSAVE;
        } else {
            e->eax = e->ebx = e->ecx = e->edx = 0; /* AVX-VNNI, BF16, ... */
        }
        break;
    case LEAF_AMD_FEATURES: /* XOP, LWP, FMA4 */
        e->ecx &= ~(1u << 11 | 1u << 15 | 1u << 16);
        break;
    case LEAF_XSAVE:
        e->eax = e->ebx = e->ecx = e->edx = 0;
        break;
    default:
        break;
    }
}

static void
shape_entry(struct kvm_cpuid_entry2 *e, unsigned id, unsigned n)
{
    switch (e->function) {
    case LEAF_FEATURES:
        e->ebx = (e->ebx & 0xffff) | n << 16 | id << 24;
        e->ecx |= F1_ECX_HYPERVISOR;
        e->edx = n > 1 ? e->edx | F1_EDX_HTT : e->edx & ~F1_EDX_HTT;
        break;
    case LEAF_CACHES: /* Intel: cores of the package; a thread has its cache */
        if (e->eax & 0x1f)
            e->eax = (e->eax & 0x3fff) | (n - 1) << 26;
        break;
    case LEAF_TOPOLOGY:
    case LEAF_TOPOLOGY_2:
        shape_topology(e, id, n);
        break;
    case LEAF_AMD_SIZES:
        e->ecx = (e->ecx & ~0xf0ffu) | width(n) << 12 | (n - 1);
        break;
    case LEAF_AMD_TOPOLOGY: /* a thread a core, one node */
        e->eax = id;
        e->ebx = id;
        e->ecx = 0;
        break;
    default:
        break;
    }
}

static struct kvm_cpuid_entry2 *
find(struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < c->nent; i++)
        if (c->entries[i].function == function && c->entries[i].index == index)
            return &c->entries[i];
    return NULL;
}

/* KVM gives one subleaf of the topology, if that: it has three. */
static void
complete_topology(struct kvm_cpuid2 *c, uint32_t leaf)
{
    if (!find(c, leaf, 0) && leaf != LEAF_TOPOLOGY)
        return;
    for (unsigned i = 0; i < 3; i++)
        if (!find(c, leaf, i) && c->nent < ST_KVM_CPUID_MAX)
            c->entries[c->nent++] =
                (struct kvm_cpuid_entry2){.function = leaf, .index = i};
}

void
st_cpuid_shape(struct kvm_cpuid2 *c, const struct st_cpuid_opts *o, unsigned id,
               unsigned n)
{
    complete_topology(c, LEAF_TOPOLOGY);
    complete_topology(c, LEAF_TOPOLOGY_2);
    for (unsigned i = 0; i < c->nent; i++) {
        shape_entry(&c->entries[i], id, n);
        if (o->noxsave)
            shape_noxsave(&c->entries[i]);
    }
}

/* Words of features: a bit that is on is something that a guest may use. */
static const struct {
    uint32_t function, index;
    bool eax, ebx, ecx, edx;
} features[] = {
    {LEAF_FEATURES, 0, false, false, true, true},
    {LEAF_EXTENDED, 0, false, true, true, true},
    {LEAF_EXTENDED, 1, true, false, false, true},
    {LEAF_XSAVE, 0, true, false, false, true},
    {LEAF_XSAVE, 1, true, false, false, false},
    {0x40000001u, 0, true, false, false, false}, /* KVM's own */
    {LEAF_AMD_FEATURES, 0, false, false, true, true},
    {0x80000007u, 0, false, false, false, true},
    {LEAF_AMD_SIZES, 0, false, true, false, false},
};

/* What of A's features B lacks. */
static bool
lacks(const struct kvm_cpuid_entry2 *a, const struct kvm_cpuid_entry2 *b,
      unsigned i)
{
    static const struct kvm_cpuid_entry2 nothing;

    if (!a)
        return false;
    b = b ? b : &nothing;
    return (features[i].eax && a->eax & ~b->eax) ||
           (features[i].ebx && a->ebx & ~b->ebx) ||
           (features[i].ecx && a->ecx & ~b->ecx) ||
           (features[i].edx && a->edx & ~b->edx);
}

int
st_cpuid_adopt(struct st_kvm *k, const struct kvm_cpuid_entry2 *e, unsigned n,
               struct st_err *err)
{
    size_t size =
        sizeof(*k->cpuid) + ST_KVM_CPUID_MAX * sizeof(k->cpuid->entries[0]);
    struct kvm_cpuid2 *c = calloc(1, size);
    const struct kvm_cpuid_entry2 *was, *is;
    int rc = 0;

    if (!c || n > ST_KVM_CPUID_MAX) {
        free(c);
        return st_err_set(err, c ? EINVAL : ENOMEM, "%s",
                          c ? "CPUID of the saved machine is too long"
                            : "no memory");
    }
    c->nent = n;
    memcpy(c->entries, e, n * sizeof(*e));
    was = find(c, 0, 0);
    is = find(k->cpuid, 0, 0);
    if (!was || !is || was->ebx != is->ebx || was->ecx != is->ecx ||
        was->edx != is->edx)
        rc = st_err_set(err, EINVAL,
                        "the saved machine had a CPU of another maker");
    for (unsigned i = 0; rc == 0 && i < sizeof(features) / sizeof(features[0]);
         i++) {
        uint32_t function = features[i].function, index = features[i].index;

        if (lacks(find(c, function, index), find(k->cpuid, function, index), i))
            rc = st_err_set(err, EINVAL,
                            "this host's CPU lacks what the saved machine's "
                            "had: CPUID leaf 0x%x",
                            function);
    }
    if (rc == 0) {
        free(k->cpuid);
        k->cpuid = c;
    } else {
        free(c);
    }
    return rc;
}

int
st_cpuid_set(const struct st_kvm *k, int fd, const struct st_cpuid_opts *o,
             unsigned id, unsigned n)
{
    size_t size =
        sizeof(*k->cpuid) + ST_KVM_CPUID_MAX * sizeof(k->cpuid->entries[0]);
    struct kvm_cpuid2 *c = malloc(size);
    int rc;

    if (!c)
        return -ENOMEM;
    memcpy(c, k->cpuid, size);
    st_cpuid_shape(c, o, id, n);
    rc = st_kvm_ioctl(fd, KVM_SET_CPUID2, c);
    free(c);
    return rc;
}
