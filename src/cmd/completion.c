/* SPDX-License-Identifier: MIT
 *
 * strata completion bash: the script that completes strata's command lines,
 * printed from the tables of commands, options, verbs and kinds.
 *
 *   strata nbd --engine th|      a word of an option's
 *   strata info memdiff:fi|      a kind, or a file; again below each layer
 *   strata info file:/srv/|      a file
 *
 * The script is a part that never changes and two functions that say what the
 * tables say. It needs bash-completion's _get_comp_words_by_ref and
 * _filedir.
 */
#include <ctype.h>
#include <string.h>

#include "cmd.h"
#include "graph.h"
#include "stack.h"

static const struct st_cmd_option completion_options[] = {{0}};

/* Words are cut at `:` and `=` by readline, but not by us: what it will not
 * replace is taken off each answer at the end. */
static const char script[] =
    "# Files below what stands in $cur, behind $before.\n"
    "_strata_files() # [-d]\n"
    "{\n"
    "    local cur=${cur#\"$before\"}\n"
    "    _filedir \"$@\"\n"
    "    COMPREPLY=(\"${COMPREPLY[@]/#/$before}\")\n"
    "}\n"
    "\n"
    "_strata_words() # WORD...\n"
    "{\n"
    "    mapfile -t COMPREPLY < <(compgen -P \"$before\" -W \"$*\" \\\n"
    "        -- \"${cur#\"$before\"}\")\n"
    "}\n"
    "\n"
    "# A SPEC behind $before: kinds and files, at every depth.\n"
    "_strata_spec()\n"
    "{\n"
    "    local rest=${cur#\"$before\"} kind kinds arguments file path name\n"
    "    while [[ $rest == *:* ]]; do\n"
    "        kind=${rest%%:*} arguments='' file=false\n"
    "        _strata_kind \"$kind\" || break\n"
    "        before+=$kind: rest=${rest#*:}\n"
    "        if [[ $arguments == 0 ]]; then\n"
    "            continue\n"
    "        fi\n"
    "        if [[ ! $arguments || $rest != *:* ]]; then\n"
    "            if $file; then\n"
    "                _strata_files\n"
    "                [[ ! $arguments ]] || compopt -o nospace\n"
    "            fi\n"
    "            return\n"
    "        fi\n"
    "        for ((; arguments; arguments--)); do\n"
    "            [[ $rest == *:* ]] || return\n"
    "            before+=${rest%%:*}: rest=${rest#*:}\n"
    "        done\n"
    "    done\n"
    "    _strata_kind\n"
    "    _strata_words \"$kinds\"\n"
    "    if ((!${#COMPREPLY[@]})); then\n"
    "        _strata_files\n"
    "        return\n"
    "    fi\n"
    "    compopt -o nospace\n"
    "    while IFS= read -r path; do\n"
    "        [[ ! -d $path ]] || path+=/\n"
    "        printf -v name %q \"$path\"\n"
    "        COMPREPLY+=(\"$before$name\")\n"
    "    done < <(compgen -f -- \"$rest\")\n"
    "}\n"
    "\n"
    "_strata_value() # KIND OF VALUE, as _strata_takes has it\n"
    "{\n"
    "    case $1 in\n"
    "    file) _strata_files ;;\n"
    "    directory) _strata_files -d ;;\n"
    "    spec) _strata_spec ;;\n"
    "    name=spec)\n"
    "        if [[ ${cur#\"$before\"} == *=* ]]; then\n"
    "            local rest=${cur#\"$before\"}\n"
    "            before+=${rest%%=*}=\n"
    "            _strata_spec\n"
    "        fi ;;\n"
    "    '='*) _strata_words \"${1#=}\" ;;\n"
    "    esac\n"
    "}\n"
    "\n"
    "_strata()\n"
    "{\n"
    "    local cur words cword command='' takes i n=0 only=false before=''\n"
    "    _get_comp_words_by_ref -n := cur words cword || return\n"
    "    COMPREPLY=()\n"
    "    [[ $cur != [\\'\\\"]* ]] || return # readline does not cut these\n"
    "    for ((i = 1; i < cword; i++)); do\n"
    "        if [[ ! $command ]]; then\n"
    "            command=${words[i]}\n"
    "        elif $only || [[ ${words[i]} != -* ]]; then\n"
    "            if _strata_takes \"$command/${words[i]}\"; then\n"
    "                command+=/${words[i]}\n"
    "            else\n"
    "                n=$((n + 1))\n"
    "            fi\n"
    "        elif [[ ${words[i]} == -- ]]; then\n"
    "            only=true\n"
    "        elif _strata_takes \"$command ${words[i]}\"; then\n"
    "            # A value that may be missing does not begin with -.\n"
    "            [[ $takes != '?'* || ${words[i + 1]} != -* ]] || continue\n"
    "            ((++i == cword)) || continue\n"
    "            _strata_value \"${takes#\\?}\"\n"
    "            _strata_trim\n"
    "            return\n"
    "        fi\n"
    "    done\n"
    "    if [[ ! $command ]]; then\n"
    "        _strata_takes\n"
    "        _strata_words \"$takes\"\n"
    "    elif ! $only && [[ $cur == --*=* ]]; then\n"
    "        before=${cur%%=*}=\n"
    "        if _strata_takes \"$command ${before%=}\"; then\n"
    "            _strata_value \"${takes#\\?}\"\n"
    "        fi\n"
    "    elif ! $only && [[ $cur == -* ]]; then\n"
    "        _strata_takes \"$command\"\n"
    "        _strata_words \"$takes\"\n"
    "    elif _strata_takes \"$command $n\"; then\n"
    "        _strata_value \"$takes\"\n"
    "    fi\n"
    "    _strata_trim\n"
    "}\n"
    "\n"
    "_strata_trim()\n"
    "{\n"
    "    local word=$cur\n"
    "    [[ $COMP_WORDBREAKS != *:* ]] || word=${word##*:}\n"
    "    [[ $COMP_WORDBREAKS != *=* ]] || word=${word##*=}\n"
    "    COMPREPLY=(\"${COMPREPLY[@]#\"${cur%\"$word\"}\"}\")\n"
    "}\n"
    "\n"
    "complete -F _strata strata\n";

/* The rest of P if it begins with WORD, else NULL. */
static const char *
after(const char *p, const char *word)
{
    size_t len = strlen(word);

    return strncmp(p, word, len) == 0 ? p + len : NULL;
}

/* What _strata_value calls the value that a table calls TEXT, of LEN bytes.
 * Small letters are words to be taken literally. */
static void
print_value(const char *text, size_t len)
{
    bool words = len > 0;

    for (size_t i = 0; i < len; i++)
        words = words && (islower((unsigned char)text[i]) || text[i] == '|' ||
                          text[i] == '_' || text[i] == '-');
    if (words) {
        putchar('=');
        for (size_t i = 0; i < len; i++)
            putchar(text[i] == '|' ? ' ' : text[i]);
    } else {
        fputs(after(text, "NAME=SPEC")                     ? "name=spec"
              : after(text, "SPEC")                        ? "spec"
              : after(text, "DIR")                         ? "directory"
              : after(text, "PATH") || after(text, "FILE") ? "file"
                                                           : "other",
              stdout);
    }
}

/* The arguments of COMMAND, by their number, up to the first that may be
 * missing. */
static void
print_arguments(const char *command, const char *syntax)
{
    for (unsigned n = 0; *syntax && *syntax != '[' && *syntax != '|'; n++) {
        size_t len = strcspn(syntax, " ");

        printf("    '%s %u') takes='", command, n);
        print_value(syntax, len);
        puts("' ;;");
        syntax += len + (syntax[len] == ' ');
    }
}

/* The verbs of ctl are commands of their own, ctl/VERB; inspect is ctl's, the
 * others are the graph's. An argument that may be missing is an option. */
static void
print_verbs(void)
{
    const struct st_verb *v;
    char command[64];

    puts("    'ctl/inspect --api') takes='file' ;;\n"
         "    'ctl/inspect --update' | 'ctl/inspect -u') takes='other' ;;\n"
         "    'ctl/inspect --depth') takes='other' ;;\n"
         "    ctl/inspect) takes='--api --update --depth --json --help' ;;");
    for (v = st_graph_verbs(); v->name; v++) {
        snprintf(command, sizeof(command), "ctl/%s", v->name);
        printf("    '%s --api') takes='file' ;;\n", command);
        for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i]; i++)
            if (st_verb_arg_kind(v->arg[i]) == ST_VERB_OPTIONAL)
                printf("    '%s --%s') takes='other' ;;\n", command,
                       st_verb_arg_name(v->arg[i]));
        print_arguments(command, v->syntax);
        printf("    %s) takes='--api ", command);
        for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i]; i++)
            if (st_verb_arg_kind(v->arg[i]) == ST_VERB_OPTIONAL)
                printf("--%s ", st_verb_arg_name(v->arg[i]));
        puts("--help' ;;");
    }
    fputs("    'ctl 0') takes='=inspect ", stdout);
    for (v = st_graph_verbs(); v->name; v++)
        printf("%s ", v->name);
    puts("' ;;");
}

/* _strata_takes: by command and option, or number of the argument, what stands
 * there, after a question mark if it may be missing; fails for an option
 * without a value. By command: its options; by nothing: the commands. */
static void
print_takes(void)
{
    puts("_strata_takes() # [COMMAND [OPTION]]; sets takes\n"
         "{\n"
         "    case $1 in");
    for (const struct st_cmd *const *c = st_cmd_all; *c; c++) {
        const struct st_cmd_option *o;

        for (o = (*c)->options; o->name; o++) {
            if (o->kind == ST_CMD_FLAG || !o->help)
                continue;
            printf("    '%s --%s') takes='%s", (*c)->name, o->name,
                   o->kind == ST_CMD_MAYBE ? "?" : "");
            print_value(o->arg, strlen(o->arg));
            puts("' ;;");
        }
        if (*c == &st_cmd_ctl)
            print_verbs();
        else
            print_arguments((*c)->name, (*c)->syntax);
        printf("    %s) takes='", (*c)->name);
        for (o = (*c)->options; o->name; o++)
            if (o->help)
                printf("--%s ", o->name);
        puts("--verbose --help' ;;");
    }
    fputs("    '') takes='", stdout);
    for (const struct st_cmd *const *c = st_cmd_all; *c; c++)
        printf("%s ", (*c)->name);
    puts("--help --version' ;;\n"
         "    *) return 1 ;;\n"
         "    esac\n"
         "}\n");
}

/* _strata_kind: how many arguments stand between a kind and the disk below;
 * none where there is no such disk. */
static void
print_kinds(void)
{
    puts("_strata_kind() # [KIND]; sets arguments and file, or kinds\n"
         "{\n"
         "    case $1 in");
    for (const struct st_kind *k = st_stack_kinds(); k->name; k++) {
        const char *p = strchr(k->syntax, ':'), *end;
        unsigned n = 0;

        if (!k->help || !*k->name || !p)
            continue;
        end = p + strlen(p) - strlen("<disk>");
        printf("    %s)", k->name);
        if (after(p, ":<path>") || strstr(p, "file>"))
            fputs(" file=true", stdout);
        if (end > p && strcmp(end, "<disk>") == 0) {
            while (++p < end)
                n += *p == ':';
            printf(" arguments=%u", n);
        }
        puts(" ;;");
    }
    fputs("    '') kinds='", stdout);
    for (const struct st_kind *k = st_stack_kinds(); k->name; k++)
        if (k->help && *k->name)
            printf("%s: ", k->name);
    puts("' ;;\n"
         "    *) return 1 ;;\n"
         "    esac\n"
         "}\n");
}

static int
completion_run(const struct st_cmd_args *a)
{
    if (a->nrest != 1 || strcmp(a->rest[0], "bash") != 0)
        return st_cmd_fail(ST_EXIT_USAGE, "expected 'bash', not '%s'",
                           a->nrest ? a->rest[a->nrest - 1] : "");
    puts("# bash completion of strata: 'strata completion bash' printed it.\n");
    print_takes();
    print_kinds();
    fputs(script, stdout);
    return ST_EXIT_OK;
}

const struct st_cmd st_cmd_completion = {
    .name = "completion",
    .syntax = "bash",
    .help = "print the script that completes command lines",
    .more = "For this shell: eval \"$(strata completion bash)\"\n",
    .options = completion_options,
    .run = completion_run,
};
