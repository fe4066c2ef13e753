/* SPDX-License-Identifier: MIT */
/*
 * The picture: engines and activities as lanes, jobs as bars, what went wrong as marks.
 *
 * Purpose. An SVG of 1200 units width that a person can read. Few jobs are drawn as they are. Many jobs are drawn twice: the whole run as
 * the share of time that each engine was busy, two units a column, and below it a window of the run in which single jobs can be told apart,
 * around the first thing that went wrong, or in the middle.
 *
 *     title, subtitle
 *     legend: groups, bars, marks
 *     overview      lanes of columns, axis        (left out when all jobs fit into the window)
 *      \       /
 *     window        lanes of bars, axis
 *
 * Not here: what the bars mean (record.c).
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define WIDTH         1200
#define LEFT          150
#define CHART         1020
#define COLUMN        2 /* units of the overview */
#define COLUMNS       (CHART / COLUMN)
#define LANE_GAP      8
#define OVERVIEW_LANE 40
#define WINDOW_LANE   54
#define FUNNEL        34
#define AXIS          30
#define WINDOW_JOBS   150 /* about as many bars as can be told apart */
#define LEGEND_GROUPS 8
#define LEGEND_TOP    84
#define LEGEND_ROW    22
#define MAX_TICKS     10

#define TEXT_COLOR  "#1f2430"
#define MUTED_COLOR "#6b7280"
#define LANE_COLOR  "#f3f4f7"
#define GRID_COLOR  "#dfe2e8"
#define HUNG_COLOR  "#e5484d"
#define LOST_COLOR  "#1f2430"
#define IRQ_COLOR   "#d97706"

static const char *const group_colors[] = { "#4f7cc4", "#f0923b", "#4aa676", "#a277c0", "#dcb92f", "#3fa9b5", "#d77fa1", "#94755b",
	"#8a93a6" };

#define GROUP_COLORS (sizeof(group_colors) / sizeof(group_colors[0]))

/* A part of the run, and where it is drawn. */
struct panel {
	int64_t start, end; /* ns */
	double top;
	double lane_height;
};

struct canvas {
	const struct record *record;
	FILE *out;
	int64_t origin; /* time 0 of the axes */
};

static const char *group_color(uint32_t group)
{
	return group_colors[group % GROUP_COLORS];
}

/* --- Places ------------------------------------------------------------------------------------------------------------- */

static double place(const struct panel *p, int64_t time)
{
	return LEFT + (double)(time - p->start) / (double)(p->end - p->start) * CHART;
}

static double lane_top(const struct panel *p, size_t lane)
{
	return p->top + (double)lane * (p->lane_height + LANE_GAP);
}

static double panel_bottom(const struct canvas *c, const struct panel *p)
{
	return lane_top(p, c->record->lane_count) - LANE_GAP;
}

/* --- Choosing the window ------------------------------------------------------------------------------------------------ */

static size_t bar_count(const struct record *r)
{
	size_t count = 0;

	for (size_t i = 0; i < r->lane_count; i++)
		count += r->lanes[i]->bar_count;
	return count;
}

static int compare_times(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a;
	int64_t y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static int64_t *sorted_starts(const struct record *r, size_t count)
{
	int64_t *starts = allocate(count, sizeof(*starts));
	size_t n = 0;

	for (size_t i = 0; i < r->lane_count; i++) {
		for (size_t k = 0; k < r->lanes[i]->bar_count; k++)
			starts[n++] = r->lanes[i]->bars[k].start;
	}
	qsort(starts, count, sizeof(*starts), compare_times);
	return starts;
}

/* An engine that is lost is worth more than a reset, the first of them more than the others. */
static bool interesting_time(const struct record *r, enum lf_queue_event_kind kind, int64_t *ret_time)
{
	int64_t first = INT64_MAX;

	for (size_t i = 0; i < r->lane_count; i++) {
		for (size_t k = 0; k < r->lanes[i]->mark_count; k++) {
			const struct mark *mark = &r->lanes[i]->marks[k];

			if (mark->kind == kind && mark->time < first)
				first = mark->time;
		}
	}
	if (first != INT64_MAX)
		*ret_time = first;
	return first != INT64_MAX;
}

static void choose_window(const struct record *r, struct panel *window)
{
	size_t count = bar_count(r);
	int64_t *starts = sorted_starts(r, count);
	int64_t time = starts[count / 2];
	size_t middle = 0;
	size_t first;

	if (!interesting_time(r, LF_QUEUE_LOST, &time))
		interesting_time(r, LF_QUEUE_RESET, &time);
	while (middle < count - 1 && starts[middle] < time)
		middle++;
	first = middle > WINDOW_JOBS / 2 ? middle - WINDOW_JOBS / 2 : 0;
	first = first + WINDOW_JOBS < count ? first : count - 1 - WINDOW_JOBS;
	window->start = starts[first];
	window->end = starts[first + WINDOW_JOBS];
	if (window->end <= window->start)
		window->end = window->start + 1;
	free(starts);
}

/* --- Text --------------------------------------------------------------------------------------------------------------- */

/* At most @max characters, the last an ellipsis if there were more. */
static void write_short_text(FILE *out, const char *text, size_t max)
{
	char buf[256];
	size_t chars = 0;
	size_t i;

	for (i = 0; text[i] && i < sizeof(buf) - 8; i++) {
		chars += ((unsigned char)text[i] & 0xc0) != 0x80;
		if (chars > max)
			break;
		buf[i] = text[i];
	}
	snprintf(buf + i, sizeof(buf) - i, "%s", text[i] ? "\xe2\x80\xa6" : "");
	write_quoted(out, buf, QUOTE_XML);
}

static void write_header(const struct canvas *c, const struct picture *what, double height)
{
	fprintf(c->out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 %d %.0f\" "
		"font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif\" font-size=\"12\" fill=\"" TEXT_COLOR
		"\">\n<title>",
		WIDTH, height, WIDTH, height);
	write_quoted(c->out, what->title, QUOTE_XML);
	fputs("</title>\n<defs><pattern id=\"hung\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
	      "patternTransform=\"rotate(45)\">"
	      "<rect width=\"6\" height=\"6\" fill=\"#fbdcdd\"/><rect width=\"2.4\" height=\"6\" fill=\"" HUNG_COLOR
	      "\"/></pattern></defs>\n"
	      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"30\" y=\"42\" font-size=\"22\" font-weight=\"600\">",
		c->out);
	write_short_text(c->out, what->title, 90);
	fputs("</text>\n<text x=\"30\" y=\"64\" font-size=\"13\" fill=\"" MUTED_COLOR "\">", c->out);
	write_short_text(c->out, what->subtitle, 160);
	fputs("</text>\n", c->out);
}

/* --- Marks -------------------------------------------------------------------------------------------------------------- */

/* A hung run is a bar already. */
static bool mark_is_drawn(enum lf_queue_event_kind kind)
{
	return kind != LF_QUEUE_FAULT_HANG;
}

static void draw_mark(FILE *out, enum lf_queue_event_kind kind, double x, double top, double height)
{
	switch (kind) {
	case LF_QUEUE_RESET:
		fprintf(out,
			"<path d=\"M%.1f %.1fv%.1f\" stroke=\"" HUNG_COLOR
			"\" stroke-width=\"1.2\"/><path d=\"M%.1f %.1fh9l-4.5 7.5z\" fill=\"" HUNG_COLOR "\"/>\n",
			x, top, height, x - 4.5, top - 4);
		break;
	case LF_QUEUE_LOST:
		fprintf(out,
			"<path d=\"M%.1f %.1fv%.1f\" stroke=\"" LOST_COLOR
			"\" stroke-width=\"2\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"7\" fill=\"" LOST_COLOR
			"\"/><path d=\"M%.1f %.1fl5 5m0 -5l-5 5\" stroke=\"#ffffff\" stroke-width=\"1.6\" stroke-linecap=\"round\"/>\n",
			x, top, height, x, top, x - 2.5, top - 2.5);
		break;
	case LF_QUEUE_FAULT_LOST_INTERRUPT:
		fprintf(out, "<path d=\"M%.1f %.1fl4 4l-4 4l-4 -4z\" fill=\"" IRQ_COLOR "\"/>\n", x, top - 4);
		break;
	case LF_QUEUE_FAULT_REORDER:
		fprintf(out, "<path d=\"M%.1f %.1fh6v6h-6z\" fill=\"#ffffff\" stroke=\"" IRQ_COLOR "\" stroke-width=\"1.4\"/>\n", x - 3,
			top - 3);
		break;
	default:
		fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"#ffffff\" stroke=\"" IRQ_COLOR "\" stroke-width=\"1.4\"/>\n",
			x, top);
		break;
	}
}

/* Marks of a kind that would lie on each other are drawn once; those that matter most, which are the last of the kinds, on top. */
static void draw_marks(const struct canvas *c, const struct panel *p, size_t index, enum lf_queue_event_kind least)
{
	const struct lane *lane = c->record->lanes[index];

	for (enum lf_queue_event_kind kind = least; kind <= LF_QUEUE_LOST; kind++) {
		double last = -1;

		for (size_t i = 0; i < lane->mark_count && mark_is_drawn(kind); i++) {
			double x = place(p, lane->marks[i].time);

			if (lane->marks[i].kind != kind || x < LEFT || x > LEFT + CHART || x < last + 3)
				continue;
			draw_mark(c->out, kind, x, lane_top(p, index), p->lane_height);
			last = x;
		}
	}
}

/* --- Legend ------------------------------------------------------------------------------------------------------------- */

static void draw_legend_text(FILE *out, double x, double y, const char *text)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\">", x, y + 4);
	write_short_text(out, text, 24);
	fputs("</text>\n", out);
}

/* How far the next entry is: an estimate, since only who shows the picture knows how wide its letters are. */
static double legend_step(const char *text)
{
	double width = 34;

	for (size_t i = 0; text[i] && i < 24; i++)
		width += text[i] >= 'A' && text[i] <= 'Z' ? 9 : 7;
	return width;
}

static void draw_group_legend(const struct canvas *c, const struct picture *what, double y)
{
	double x = LEFT;
	size_t drawn;

	fprintf(c->out, "<text x=\"30\" y=\"%.1f\" fill=\"" MUTED_COLOR "\">%ss</text>\n", y + 4, what->group_noun);
	for (drawn = 0; drawn < c->record->group_count && drawn < LEGEND_GROUPS; drawn++) {
		const char *name = c->record->groups[drawn];

		if (x + legend_step(name) > WIDTH - 190)
			break;
		fprintf(c->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" rx=\"3\" fill=\"%s\"/>\n", x, y - 6,
			group_color((uint32_t)drawn));
		draw_legend_text(c->out, x + 18, y, name);
		x += legend_step(name);
	}
	if (drawn < c->record->group_count)
		fprintf(c->out, "<text x=\"%.1f\" y=\"%.1f\" fill=\"" MUTED_COLOR "\">and %zu more%s</text>\n", x, y + 4,
			c->record->group_count - drawn, c->record->group_count > GROUP_COLORS ? ", colours repeat" : "");
}

static bool has_mark(const struct record *r, enum lf_queue_event_kind kind)
{
	int64_t time;

	return interesting_time(r, kind, &time);
}

static void draw_bar_legend(const struct canvas *c, const struct picture *what, bool many, double y)
{
	fprintf(c->out, "<text x=\"30\" y=\"%.1f\" fill=\"" MUTED_COLOR "\">bars</text>\n<text x=\"%d\" y=\"%.1f\">", y + 4, LEFT, y + 4);
	if (many)
		fprintf(c->out, "above: height is the share of time busy, colour the %s with most of that; below: ",
			what->group_noun);
	fprintf(c->out, "each bar is one run, its number the %s</text>\n", what->number_noun);
}

static bool has_failed_run(const struct record *r)
{
	for (size_t i = 0; i < r->lane_count; i++) {
		for (size_t k = 0; k < r->lanes[i]->bar_count; k++) {
			if (r->lanes[i]->bars[k].how == BAR_FAILED)
				return true;
		}
	}
	return false;
}

/* Whether jobs ran on after the last loss: on another queue, in the same lane. */
static bool lane_goes_on(const struct lane *lane)
{
	int64_t lost = INT64_MIN;

	for (size_t i = 0; i < lane->mark_count; i++) {
		if (lane->marks[i].kind == LF_QUEUE_LOST && lane->marks[i].time > lost)
			lost = lane->marks[i].time;
	}
	return lost == INT64_MIN || (lane->bar_count && lane->bars[lane->bar_count - 1].start > lost);
}

static const char *mark_text(const struct record *r, enum lf_queue_event_kind kind)
{
	if (kind != LF_QUEUE_LOST)
		return mark_name(kind);
	for (size_t i = 0; i < r->lane_count; i++) {
		if (!lane_goes_on(r->lanes[i]))
			return mark_name(kind);
	}
	return "engine lost, replaced";
}

static bool has_faults(const struct record *r)
{
	for (enum lf_queue_event_kind kind = LF_QUEUE_FAULT_HANG; kind <= LF_QUEUE_LOST; kind++) {
		if (has_mark(r, kind))
			return true;
	}
	return has_failed_run(r);
}

static double draw_run_legend(FILE *out, const char *style, const char *text, double x, double y)
{
	fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"16\" height=\"12\" rx=\"2\" %s/>\n", x, y - 6, style);
	draw_legend_text(out, x + 22, y, text);
	return x + legend_step(text);
}

static void draw_mark_legend(const struct canvas *c, double y)
{
	double x = LEFT;

	fprintf(c->out, "<text x=\"30\" y=\"%.1f\" fill=\"" MUTED_COLOR "\">faults</text>\n", y + 4);
	if (has_mark(c->record, LF_QUEUE_FAULT_HANG))
		x = draw_run_legend(c->out, "fill=\"url(#hung)\"", "hung run", x, y);
	if (has_failed_run(c->record))
		x = draw_run_legend(c->out, "fill=\"#ffffff\" stroke=\"" HUNG_COLOR "\" stroke-width=\"1.2\"", "failed run", x, y);
	for (enum lf_queue_event_kind kind = LF_QUEUE_FAULT_HANG; kind <= LF_QUEUE_LOST; kind++) {
		if (!mark_is_drawn(kind) || !has_mark(c->record, kind))
			continue;
		draw_mark(c->out, kind, x + 7, y, 0);
		draw_legend_text(c->out, x + 19, y, mark_text(c->record, kind));
		x += legend_step(mark_text(c->record, kind));
	}
}

/* --- Lanes and axes ----------------------------------------------------------------------------------------------------- */

static double busy_percent(const struct lane *lane, int64_t span)
{
	int64_t busy = 0;

	for (size_t i = 0; i < lane->bar_count; i++) {
		if (lane->bars[i].how != BAR_HUNG)
			busy += lane_bar_end(lane, i) - lane->bars[i].start;
	}
	return 100.0 * (double)busy / (double)span;
}

static void draw_lane(const struct canvas *c, const struct panel *p, size_t index, double busy)
{
	const struct lane *lane = c->record->lanes[index];
	double top = lane_top(p, index);
	double middle = top + p->lane_height / 2;

	fprintf(c->out, "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" rx=\"4\" fill=\"" LANE_COLOR "\"/>\n", LEFT, top, CHART,
		p->lane_height);
	fprintf(c->out, "<text x=\"30\" y=\"%.1f\" font-weight=\"600\" font-size=\"13\">", busy < 0 ? middle + 5 : middle - 2);
	write_short_text(c->out, lane->name, 14);
	fputs("</text>\n", c->out);
	if (busy >= 0)
		fprintf(c->out,
			"<text x=\"30\" y=\"%.1f\" font-size=\"11\" fill=\"" MUTED_COLOR "\">%.0f %% busy, %" PRIu64 " %s%s</text>\n",
			middle + 14, busy, lane->jobs, lane->kind == LANE_ENGINE ? "job" : "time", lane->jobs == 1 ? "" : "s");
}

/* 1, 2 or 5 times a power of ten, so that there are not more than MAX_TICKS. */
static int64_t tick_step(int64_t span)
{
	int64_t step = 1;

	for (int i = 0; span / step > MAX_TICKS; i++)
		step = i % 3 == 1 ? step / 2 * 5 : step * 2;
	return step;
}

/* In the largest unit that the times reach, with as many decimals as tell the ticks apart. */
static void write_tick_text(FILE *out, int64_t time, int64_t step, int64_t end)
{
	int64_t unit = end >= 1000000000 ? 1000000000 : end >= 1000000 ? 1000000 : 1000;
	const char *name = unit == 1000000000 ? "s" : unit == 1000000 ? "ms" : "us";
	int decimals = 0;

	for (int64_t s = step; s < unit && decimals < 6; s *= 10)
		decimals++;
	fprintf(out, "%.*f %s", decimals, (double)time / (double)unit, name);
}

static void draw_axis(const struct canvas *c, const struct panel *p)
{
	int64_t step = tick_step(p->end - p->start);
	double bottom = panel_bottom(c, p);
	int64_t first = (p->start - c->origin + step - 1) / step * step;

	for (int64_t time = first; time <= p->end - c->origin; time += step) {
		double x = place(p, time + c->origin);

		fprintf(c->out,
			"<path d=\"M%.1f %.1fV%.1f\" stroke=\"" GRID_COLOR
			"\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"11\" fill=\"" MUTED_COLOR "\">",
			x, p->top - 4, bottom + 6, x, bottom + 20);
		write_tick_text(c->out, time, step, p->end - c->origin);
		fputs("</text>\n", c->out);
	}
}

static void draw_frame(const struct canvas *c, const struct panel *p, bool with_numbers)
{
	int64_t start;
	int64_t end;

	record_span(c->record, &start, &end);
	for (size_t i = 0; i < c->record->lane_count; i++)
		draw_lane(c, p, i, with_numbers ? busy_percent(c->record->lanes[i], end - start) : -1);
	draw_axis(c, p);
}

/* --- Overview ----------------------------------------------------------------------------------------------------------- */

/* What happened during a column: fractions of its time, and the group that had most of it (a majority vote, weighed by time). */
struct column {
	double busy;
	double hung;
	double weight;
	uint32_t group;
};

static void vote(struct column *column, uint32_t group, double part)
{
	column->busy += part;
	if (column->group == group) {
		column->weight += part;
	} else if (column->weight < part) {
		column->group = group;
		column->weight = part - column->weight;
	} else {
		column->weight -= part;
	}
}

static void add_bar(struct column *columns, const struct panel *p, const struct lane *lane, size_t index)
{
	const struct bar *bar = &lane->bars[index];
	double from = (place(p, bar->start) - LEFT) / COLUMN;
	double to = (place(p, lane_bar_end(lane, index)) - LEFT) / COLUMN;

	for (int i = (int)from; i < COLUMNS && i < to; i++) {
		double part = fmin(to, i + 1) - fmax(from, i);

		if (bar->how == BAR_HUNG)
			columns[i].hung += part;
		else
			vote(&columns[i], bar->group, part);
	}
}

/* Less than a unit of height would not be seen. */
static double column_height(double fraction, double lane_height)
{
	double height = round(fmin(fraction, 1) * (lane_height - 4));

	return fraction > 0 ? fmax(height, 1) : 0;
}

static void draw_columns(const struct canvas *c, const struct panel *p, const struct column *columns, size_t lane)
{
	double bottom = lane_top(p, lane) + p->lane_height;

	for (int i = 0; i < COLUMNS;) {
		const struct column *column = &columns[i];
		double busy = column_height(column->busy, p->lane_height);
		double hung = column_height(column->hung, p->lane_height);
		int width = 0;

		do /* neighbours that look the same become one */
			width++;
		while (i + width < COLUMNS && columns[i + width].group == column->group &&
			column_height(columns[i + width].busy, p->lane_height) == busy &&
			column_height(columns[i + width].hung, p->lane_height) == hung);
		if (busy > 0)
			fprintf(c->out, "<rect x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"%.0f\" fill=\"%s\"/>\n", LEFT + i * COLUMN,
				bottom - busy, width * COLUMN, busy, group_color(column->group));
		if (hung > 0)
			fprintf(c->out, "<rect x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"%.0f\" fill=\"url(#hung)\"/>\n", LEFT + i * COLUMN,
				bottom - busy - hung, width * COLUMN, hung);
		i += width;
	}
}

static void draw_overview(const struct canvas *c, const struct panel *p)
{
	draw_frame(c, p, true);
	for (size_t i = 0; i < c->record->lane_count; i++) {
		const struct lane *lane = c->record->lanes[i];
		struct column columns[COLUMNS] = { { 0 } };

		for (size_t k = 0; k < lane->bar_count; k++)
			add_bar(columns, p, lane, k);
		draw_columns(c, p, columns, i);
		draw_marks(c, p, i, LF_QUEUE_RESET);
	}
}

/* Leads the eye from the window in the overview to the window below. */
static void draw_funnel(const struct canvas *c, const struct panel *overview, const struct panel *window)
{
	double left = place(overview, window->start);
	double right = fmax(place(overview, window->end), left + 2);
	double bottom = panel_bottom(c, overview);

	fprintf(c->out, "<path d=\"M%.1f %.1fL%.1f %.1fL%d %.1fH%dz\" fill=\"#4f7cc4\" fill-opacity=\"0.09\"/>\n", left, bottom + AXIS - 4,
		right, bottom + AXIS - 4, LEFT + CHART, window->top - 8, LEFT);
	fprintf(c->out,
		"<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#4f7cc4\" fill-opacity=\"0.12\" "
		"stroke=\"#4f7cc4\" stroke-width=\"1\"/>\n",
		left, overview->top - 6, right - left, bottom - overview->top + AXIS + 2);
}

/* --- Window ------------------------------------------------------------------------------------------------------------- */

static void draw_bar_fill(FILE *out, const struct bar *bar)
{
	if (bar->how == BAR_HUNG)
		fputs(" fill=\"url(#hung)\" stroke=\"" HUNG_COLOR "\" stroke-width=\"0.8\"", out);
	else if (bar->how == BAR_FAILED)
		fprintf(out, " fill=\"%s\" fill-opacity=\"0.35\" stroke=\"" HUNG_COLOR "\" stroke-width=\"1.2\"", group_color(bar->group));
	else
		fprintf(out, " fill=\"%s\"", group_color(bar->group));
}

/* The number of the job, if it fits. */
static void draw_bar_text(FILE *out, const struct bar *bar, double left, double width, double y)
{
	char text[24];
	int length = snprintf(text, sizeof(text), "%" PRIu64, bar->number);

	if (width < 7.0 * length + 6 || bar->how != BAR_DONE)
		return;
	fprintf(out,
		"<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"11\" fill=\"#ffffff\" pointer-events=\"none\">%s</text>\n",
		left + width / 2, y + 4, text);
}

static void draw_bar(const struct canvas *c, const struct panel *p, size_t index, size_t k)
{
	const struct lane *lane = c->record->lanes[index];
	const struct bar *bar = &lane->bars[k];
	double left = fmax(place(p, bar->start), LEFT);
	double right = fmin(place(p, lane_bar_end(lane, k)), LEFT + CHART);
	double gap = right - left > 4 ? 0.8 : 0; /* between jobs that follow each other at once */
	double width = fmax(right - left - gap, 0.8);
	double top = lane_top(p, index) + 5;

	if (left >= LEFT + CHART || place(p, lane_bar_end(lane, k)) < LEFT)
		return;
	fprintf(c->out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" rx=\"%.1f\"", left, top, width, p->lane_height - 10,
		fmin(width / 3, 3));
	draw_bar_fill(c->out, bar);
	fputs("><title>", c->out);
	write_quoted(c->out, c->record->groups[bar->group], QUOTE_XML);
	fprintf(c->out, " #%" PRIu64 ", run %u: %s</title></rect>\n", bar->number, bar->attempt,
		duration_text(lane_bar_end(lane, k) - bar->start).chars);
	draw_bar_text(c->out, bar, left, width, top + (p->lane_height - 10) / 2);
}

static void draw_window(const struct canvas *c, const struct panel *p, bool with_numbers)
{
	draw_frame(c, p, with_numbers);
	for (size_t i = 0; i < c->record->lane_count; i++) {
		for (size_t k = 0; k < c->record->lanes[i]->bar_count; k++)
			draw_bar(c, p, i, k);
		draw_marks(c, p, i, LF_QUEUE_FAULT_HANG);
	}
}

/* --- All of it ---------------------------------------------------------------------------------------------------------- */

void picture_write(const struct record *r, const struct picture *what, FILE *out)
{
	struct canvas c = { .record = r, .out = out };
	struct panel overview = { .lane_height = OVERVIEW_LANE };
	struct panel window = { .lane_height = WINDOW_LANE };
	bool many = bar_count(r) > 2 * WINDOW_JOBS;
	bool faults = has_faults(r);
	double top = LEGEND_TOP + LEGEND_ROW * (faults ? 3 : 2) + 22;

	record_span(r, &overview.start, &overview.end);
	c.origin = overview.start;
	overview.top = top;
	window.start = overview.start;
	window.end = overview.end;
	window.top = many ? panel_bottom(&c, &overview) + AXIS + FUNNEL : top;
	if (many)
		choose_window(r, &window);

	write_header(&c, what, panel_bottom(&c, &window) + AXIS + 16);
	draw_group_legend(&c, what, LEGEND_TOP + 8);
	draw_bar_legend(&c, what, many, LEGEND_TOP + LEGEND_ROW + 8);
	if (faults)
		draw_mark_legend(&c, LEGEND_TOP + 2 * LEGEND_ROW + 8);
	if (many) {
		draw_overview(&c, &overview);
		draw_funnel(&c, &overview, &window);
	}
	draw_window(&c, &window, !many);
	fputs("</svg>\n", out);
}
