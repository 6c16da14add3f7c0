/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* memory-map: the guest's memory as a picture. hvd has judged every block; here is only how that looks. */

#include "hmc-cli/map.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"

/* The guest looks at its pages for 2 s in 32 GiB; hvd waits some seconds more for a slow one. */
#define MAP_TIMEOUT_USEC (120 * USEC_PER_SEC)
/* More, and each stands for two blocks, or four, ... */
#define CELLS_MAX   1024U
#define WIDTH_MAX   64U
#define WIDTH_MIN   8U
#define LABEL_MAX   80U
#define REASONS_MAX 32U

/* In a cell of several blocks the last one counts. */
enum cell {
        CELL_ABSENT,
        CELL_BASE,
        CELL_LEAVES,
        CELL_MOVABLE,
        CELL_KERNEL,
        CELL_HELD,
        CELL_OFFLINE,
        CELL_STUCK,
        CELL_MAX,
};

static const struct {
        char letter;
        const char *color; /* SGR */
        const char *word;
} cells[CELL_MAX] = {
        [CELL_ABSENT] = { ' ', "", "" },
        [CELL_BASE] = { 'B', "34", "base: it was there at boot and cannot leave" },
        [CELL_LEAVES] = { 'L', "1;32", "would leave: the cheapest" },
        [CELL_MOVABLE] = { 'M', "32", "online in zone Movable, can leave" },
        [CELL_KERNEL] = { 'K', "33", "online in a kernel zone, can leave" },
        [CELL_HELD] = { 'h', "35", "held: another block keeps its device" },
        [CELL_OFFLINE] = { 'o', "36", "offline" },
        [CELL_STUCK] = { 'S', "1;31", "stuck: holds pages that do not move" },
};

static enum cell cell_of(struct json_object *block)
{
        const char *fate = field_string(block, "fate"), *zone = field_string(block, "zone");

        if (strcmp(fate, "base") == 0)
                return CELL_BASE;
        if (strcmp(fate, "stuck") == 0)
                return CELL_STUCK;
        if (strcmp(field_string(block, "state"), "online") != 0)
                return CELL_OFFLINE;
        if (strcmp(fate, "held") == 0)
                return CELL_HELD;
        if (strcmp(fate, "leaves") == 0)
                return CELL_LEAVES;
        return strcmp(zone, "movable") == 0 ? CELL_MOVABLE : CELL_KERNEL;
}

struct drawing {
        FILE *f;
        bool color;
        unsigned width; /* cells in a line */
        int label;      /* columns before them */
        uint64_t cell_bytes;
        unsigned column;
        enum cell last; /* whose color is on */
};

static void set_color(struct drawing *d, enum cell cell)
{
        if (!d->color || cell == d->last)
                return;
        if (d->last != CELL_ABSENT)
                fputs("\033[0m", d->f);
        if (cells[cell].color[0])
                fprintf(d->f, "\033[%sm", cells[cell].color);
        d->last = cell;
}

static void put_cell(struct drawing *d, enum cell cell)
{
        if (d->column == d->width) {
                set_color(d, CELL_ABSENT);
                fprintf(d->f, "\n%*s", d->label, "");
                d->column = 0;
        }
        set_color(d, cell);
        fputc(cells[cell].letter, d->f);
        d->column++;
}

static struct json_object *block_at(struct json_object *blocks, size_t i)
{
        return json_object_array_get_idx(blocks, i);
}

/* Blocks of one device, or of base memory in one node: those from i on; returns the first that is not. */
static size_t group_end(struct json_object *blocks, size_t i)
{
        const char *device = field_string(block_at(blocks, i), "device");
        uint64_t node = field_u64(block_at(blocks, i), "node");
        size_t n = json_object_array_length(blocks);

        while (i < n && strcmp(field_string(block_at(blocks, i), "device"), device) == 0 &&
                field_u64(block_at(blocks, i), "node") == node)
                i++;
        return i;
}

static bool has_nodes(struct json_object *blocks)
{
        for (size_t i = 0; i < json_object_array_length(blocks); i++)
                if (field_u64(block_at(blocks, i), "node") > 0)
                        return true;
        return false;
}

static void put_cells(struct drawing *d, struct json_object *blocks, size_t from, size_t to)
{
        uint64_t cell_end = 0;
        enum cell cell = CELL_ABSENT;

        for (size_t i = from; i < to; i++) {
                struct json_object *b = block_at(blocks, i);
                uint64_t at = field_u64(b, "start"), end = at + field_u64(b, "length");

                while (at < end) {
                        if (at >= cell_end) {
                                if (cell != CELL_ABSENT)
                                        put_cell(d, cell);
                                cell = CELL_ABSENT;
                                cell_end = at + d->cell_bytes;
                        }
                        cell = MAX(cell, cell_of(b));
                        at = MIN(end, cell_end);
                }
        }
        if (cell != CELL_ABSENT)
                put_cell(d, cell);
        set_color(d, CELL_ABSENT);
        fputc('\n', d->f);
        d->column = 0;
}

/* "0x100000000  opendlpar-dimm-0", with the LMBs where there are DRC indices, and the node where there are
 * several. */
static void make_label(
        struct json_object *blocks, size_t from, size_t to, bool nodes, char label[static LABEL_MAX])
{
        struct json_object *first = block_at(blocks, from), *last = block_at(blocks, to - 1);
        const char *device = field_string(first, "device");
        uint64_t drc = field_u64(first, "drc"), start = field_u64(first, "start");
        uint64_t end = field_u64(last, "start") + field_u64(last, "length");

        if (drc > 0) {
                uint64_t n_lmbs = (end - start + (256 * MIB) - 1) / (256 * MIB);
                char range[16] = "";

                if (n_lmbs > 1)
                        snprintf(range, sizeof(range), "-0x%08" PRIx32, (uint32_t)(drc + n_lmbs - 1));
                snprintf(label, LABEL_MAX, "0x%08" PRIx32 "%s  %.30s", (uint32_t)drc, range, device);
        } else
                snprintf(label, LABEL_MAX, "0x%-10" PRIx64 "  %.30s", start, *device ? device : "base");
        size_t used = strlen(label);
        if (nodes)
                snprintf(label + used, LABEL_MAX - used, "  node %" PRIu64, field_u64(first, "node"));
}

static int print_legend(FILE *f, struct json_object *blocks)
{
        static const struct output_column columns[] = { { "CELL" }, { "MEANS" }, { "SIZE", .right = true } };
        _cleanup_(output_cells_done) struct output_cells table = {};
        uint64_t sums[CELL_MAX] = {}, total = 0;

        for (size_t i = 0; i < json_object_array_length(blocks); i++) {
                uint64_t length = field_u64(block_at(blocks, i), "length");

                sums[cell_of(block_at(blocks, i))] += length;
                total += length;
        }
        for (enum cell c = CELL_BASE; c < CELL_MAX; c++) {
                if (sums[c] == 0)
                        continue;
                output_cell(&table, "%c", cells[c].letter);
                output_cell(&table, "%s", cells[c].word);
                output_cell(&table, "%s", TEXT_SIZE(sums[c]));
        }
        output_cell(&table, "%s", "");
        output_cell(&table, "total");
        output_cell(&table, "%s", TEXT_SIZE(total));
        fputc('\n', f);
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &table);
}

static void print_reasons(FILE *f, struct json_object *blocks)
{
        size_t n = 0;

        for (size_t i = 0; i < json_object_array_length(blocks); i++) {
                struct json_object *b = block_at(blocks, i);

                if (cell_of(b) != CELL_STUCK || n++ >= REASONS_MAX)
                        continue;
                if (n == 1)
                        fputs("\nStuck:\n", f);
                fputs("  ", f);
                text_put(f, field_string(b, "device"));
                fprintf(f, ", block 0x%" PRIx64 ": ", field_u64(b, "start"));
                text_put(f, field_string(b, "why"));
                fputc('\n', f);
        }
        if (n > REASONS_MAX)
                fprintf(f, "  and %zu more; -o json has them all\n", n - REASONS_MAX);
}

int map_print(FILE *f, struct json_object *map, bool color, unsigned width)
{
        struct json_object *blocks = field_array(map, "blocks");
        struct drawing d = { .f = f, .color = color, .cell_bytes = field_u64(map, "block_bytes") };
        size_t n = blocks ? json_object_array_length(blocks) : 0;
        bool nodes = n > 0 && has_nodes(blocks);
        char label[LABEL_MAX];
        uint64_t bytes = 0;

        text_put(f, field_string(map, "partition"));
        if (n == 0 || d.cell_bytes == 0) {
                fputs(": the guest lists no memory blocks\n", f);
                return 0;
        }
        for (size_t i = 0; i < n; i++)
                bytes += field_u64(block_at(blocks, i), "length");
        uint64_t block_bytes = d.cell_bytes;
        while (bytes / d.cell_bytes > CELLS_MAX)
                d.cell_bytes *= 2;
        fprintf(f, ": %s in blocks of %s, a cell is %s\n\n", TEXT_SIZE(bytes), TEXT_SIZE(block_bytes),
                TEXT_SIZE(d.cell_bytes));

        for (size_t i = 0, end; i < n; i = end) {
                end = group_end(blocks, i);
                make_label(blocks, i, end, nodes, label);
                d.label = MAX(d.label, (int)strlen(label) + 2);
        }
        unsigned left = width > (unsigned)d.label ? width - (unsigned)d.label : 0;
        left = MAX(left, WIDTH_MIN);
        d.width = MIN(left, WIDTH_MAX);
        for (size_t i = 0, end; i < n; i = end) {
                end = group_end(blocks, i);
                make_label(blocks, i, end, nodes, label);
                text_put(f, label);
                fprintf(f, "%*s", d.label - (int)strlen(label), "");
                put_cells(&d, blocks, i, end);
        }
        int r = print_legend(f, blocks);
        if (r < 0)
                return r;
        print_reasons(f, blocks);
        if (*field_string(map, "note")) {
                fputs("\nThe guest's pages were not surveyed, so costs and obstacles are not known: ", f);
                text_put(f, field_string(map, "note"));
                fputc('\n', f);
        }
        return 0;
}

/* --- the command --- */

enum {
        OPTION_REMOVE = 0x200,
};

static const struct cli_option map_options[] = {
        { "remove", OPTION_REMOVE, "SIZE", "Mark what would leave if so much were removed (one device)" },
        {},
};

static int map_option(void *request, int id, const char *value, struct error *ret_error)
{
        return size_parse(value, request, ret_error);
}

static int read_map(sd_bus_message *reply, const char *partition, struct json_object **ret)
{
        _cleanup_json_ struct json_object *o = json_object_new_object(), *blocks = NULL;
        uint64_t block_bytes, page_bytes;
        const char *note;
        int r = sd_bus_message_read(reply, "tts", &block_bytes, &page_bytes, &note);

        if (r < 0 || (r = bus_read_value(reply, "MemoryMap", &blocks)) < 0)
                return r;
        if (!o || (r = json_add_string(o, "partition", partition)) < 0 ||
                (r = json_add_u64(o, "block_bytes", block_bytes)) < 0 ||
                (r = json_add_u64(o, "page_bytes", page_bytes)) < 0 ||
                (r = json_add_string(o, "note", note)) < 0 ||
                (r = json_add(o, "blocks", steal_pointer(blocks))) < 0)
                return o ? r : -ENOMEM;
        *ret = steal_pointer(o);
        return 0;
}

static unsigned terminal_width(void)
{
        struct winsize size;

        return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

static bool wants_color(void)
{
        const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

        return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static int run_memory_map(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *call = NULL, *reply = NULL;
        _cleanup_json_ struct json_object *map = NULL;
        _cleanup_free_ char *path = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        struct error error;
        uint64_t bytes = 0;
        int r;

        r = args_parse(cli, verb, argc, argv, &bytes, words, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_partition_path(words[0], &path);
        if (r < 0)
                return output_fail_errno(cli, r);
        r = bus_open(cli);
        if (r != 0)
                return r;
        r = sd_bus_message_new_method_call(
                cli->bus, &call, HVD_NAME, path, HVD_PARTITION_INTERFACE, "MemoryMap");
        if (r >= 0)
                r = sd_bus_message_append(call, "t", bytes);
        if (r < 0)
                return output_fail_errno(cli, r);
        r = sd_bus_call(cli->bus, call, bus_timeout(MAP_TIMEOUT_USEC), &bus_error, &reply);
        if (r < 0)
                return bus_fail_partition(cli, words[0], &bus_error, r);
        r = read_map(reply, words[0], &map);
        if (r >= 0 && !cli->arg_json)
                r = map_print(stdout, map, wants_color(), terminal_width());
        if (r < 0)
                return output_fail_errno(cli, r);
        if (cli->arg_json)
                output_json(map);
        return CLI_DONE;
}

const struct cli_verb verb_memory_map = {
        .name = "memory-map",
        .positionals = { "PARTITION" },
        .help = "Draws the guest's memory: what can leave, and what not and why",
        .options = map_options,
        .option = map_option,
        .run = run_memory_map,
};
