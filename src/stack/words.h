/* SPDX-License-Identifier: MIT
 *
 * Cutting text into words, where `\` takes the meaning from , ; : [ ] \ and
 * nothing else. All of it works in place, on text of the caller's own.
 */
#ifndef ST_WORDS_H
#define ST_WORDS_H

/* The first SEP in P that is not escaped; NULL if there is none. */
char *st_word_find(char *p, char sep);

/* The same, and not inside [...]. Brackets that do not match count as text. */
char *st_word_find_outside(char *p, char sep);

/* The bracket that closes the one at P; NULL if none does. */
char *st_word_close(char *p);

/* Take the escapes out of P. */
void st_word_unescape(char *p);

#endif
