/* SPDX-License-Identifier: MIT
 *
 * What the tests of block devices share: loop devices above the world's file.
 */
#ifndef TEST_DEVICE_H
#define TEST_DEVICE_H

#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "file_private.h"
#include "test_file.h"

/* Make a loop device above w->path, of SIZE bytes and SECTOR. It goes with the
 * last descriptor, however this process ends. */
static inline void
attach_as(struct world *w, uint64_t size, uint32_t sector, uint32_t flags)
{
    st_autoclose int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    struct loop_config c = {.block_size = sector,
                            .info.lo_flags = LO_FLAGS_AUTOCLEAR | flags};
    st_autoclose int file = -1;
    int rc = -1;

    if (control < 0)
        skip_for("no loop devices here");
    make(w, size);
    file = open(w->path, O_RDWR | O_CLOEXEC);
    c.fd = (uint32_t)file;
    for (unsigned i = 0; i < 100 && rc < 0; i++) {
        int n = ioctl(control, LOOP_CTL_GET_FREE);

        if (n < 0)
            skip_for("no loop device is free");
        snprintf(w->device, sizeof(w->device), "/dev/loop%d", n);
        w->device_fd = open(w->device, O_RDWR | O_CLOEXEC);
        if (w->device_fd < 0)
            skip_for("a loop device without a node in /dev");
        rc = ioctl(w->device_fd, LOOP_CONFIGURE, &c);
        if (rc < 0) { /* somebody was faster */
            close(w->device_fd);
            w->device_fd = -1;
        }
    }
    assert_int_equal(rc, 0);
}

static inline void
attach(struct world *w, uint64_t size, uint32_t sector)
{
    attach_as(w, size, sector, 0);
}

static inline void
detach(struct world *w)
{
    leave(w);
    if (w->device_fd >= 0)
        close(w->device_fd);
    w->device_fd = -1;
}

static inline int
detach_and_teardown(void **state)
{
    detach(*state);
    return teardown(state);
}

#define D(f)                                                                   \
    {                                                                          \
#f, f, setup, detach_and_teardown, NULL                                \
    }

static inline void
use_device(struct world *w, struct st_file_opts o)
{
    o.path = w->device;
    use(w, o);
}

static inline int
try_device(struct world *w, struct st_file_opts o, struct st_err *err)
{
    struct st_node *n;
    int rc;

    o.path = w->device;
    rc = try_open(w, o, &n, err);
    if (rc == 0)
        st_node_close(n);
    return rc;
}

static inline void
says(const struct st_err *err, const char *part)
{
    if (!strstr(err->text, part))
        fail_msg("'%s' does not say '%s'", err->text, part);
}

/* Bytes of the backing file that are on the disk. */
static inline uint64_t
allocated(struct world *w)
{
    struct stat sb;

    assert_int_equal(stat(w->path, &sb), 0);
    return (uint64_t)sb.st_blocks * 512;
}

/* Make the backing file SIZE bytes long, and the device, too. */
static inline void
set_capacity(struct world *w, uint64_t size)
{
    assert_int_equal(truncate(w->path, (off_t)size), 0);
    assert_int_equal(ioctl(w->device_fd, LOOP_SET_CAPACITY, 0), 0);
}

/* Can loop devices be made here? Else a line says that they cannot. */
static inline bool
has_loop_devices(void)
{
    if (access("/dev/loop-control", R_OK | W_OK) == 0)
        return true;
    printf("skip: no loop devices here, or not for this user\n");
    return false;
}

/* Run the tests where loop devices can be made; else 77. */
static inline int
run_on_loop_devices(const struct CMUnitTest *tests, size_t n)
{
    return has_loop_devices() ? run_on_every_engine(tests, n) : 77;
}

#endif
