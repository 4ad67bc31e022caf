/* SPDX-License-Identifier: MIT
 *
 * Writing ACPI Machine Language (ACPI 6.5, chapter 20), and the resource
 * descriptors in it (6.4): as much as the machine's tables say.
 *
 * Whatever has a length is begun and ended; what is written between is its
 * content. Memory that cannot be had is remembered: later calls do nothing.
 */
#ifndef ST_AML_H
#define ST_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was written until now; zeroed before. Free data with free(). */
struct st_aml {
    uint8_t *data; /* owned */
    size_t len, max;
    bool failed; /* -ENOMEM */
};

/* LEN bytes as they are; DATA NULL: zeroes. */
void st_aml_bytes(struct st_aml *a, const void *data, size_t len);

/* An integer, a string of ASCII. */
void st_aml_integer(struct st_aml *a, uint64_t value);
void st_aml_string(struct st_aml *a, const char *text);

/* Name (NAME, ...): the object that is written next. NAME has four
 * characters, after a backslash if it is of the root. */
void st_aml_name(struct st_aml *a, const char *name);

/* Scope (NAME), Device (NAME), Package of N elements. They return what
 * st_aml_end wants. */
size_t st_aml_scope(struct st_aml *a, const char *name);
size_t st_aml_device(struct st_aml *a, const char *name);
size_t st_aml_package(struct st_aml *a, uint8_t n);
void st_aml_end(struct st_aml *a, size_t begun);

/* A compressed identifier, as PNP0A03: three capitals, four hex digits. */
void st_aml_eisa_id(struct st_aml *a, const char *id);

/* A ResourceTemplate, and what can be in it. */
size_t st_aml_resources(struct st_aml *a);
void st_aml_resources_end(struct st_aml *a, size_t begun);
void st_aml_io(struct st_aml *a, uint16_t port, uint8_t len);
void st_aml_irq(struct st_aml *a, unsigned irq);
void st_aml_memory_fixed(struct st_aml *a, uint32_t address, uint32_t len);
/* Ranges from MIN to MAX, both in, that a bridge passes on. */
void st_aml_bus_range(struct st_aml *a, uint16_t min, uint16_t max);
void st_aml_io_range(struct st_aml *a, uint16_t min, uint16_t max);
void st_aml_memory_range(struct st_aml *a, uint64_t min, uint64_t max);

#endif
