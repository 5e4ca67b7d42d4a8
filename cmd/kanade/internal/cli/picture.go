package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

// picture is how an exec stands: itself, its waves on a time line, and its failures grouped by what they have in common.
type picture struct {
	exec     client.Execution
	waves    []client.Wave
	failures []client.Failure
}

// ended reports whether nothing more is waited for.
func (p picture) ended() bool { return p.exec.EndedSequence > 0 }

// print writes the picture for a terminal of so many columns; 0: they have no end.
func (p picture) print(w io.Writer, now time.Time, width int) error {
	e := p.exec
	f := newTable(w, "exec", e.ExecID)
	f.row("job", e.JobID+" "+e.Version)
	f.row("asked", cell(e.InitiatedAt)+" by "+by(e))
	switch {
	case e.ScheduleID != "" && e.Nominal != nil:
		f.row("schedule", e.ScheduleID+", for "+cell(*e.Nominal))
	case e.ScheduleID != "":
		f.row("schedule", e.ScheduleID)
	}
	if e.RetryOf != "" {
		f.row("tries again", e.RetryOf)
	}
	f.row("status", p.status())
	f.row("outcome", strings.TrimSpace(e.Outcome+" "+e.Reason))
	if s := e.Stopped; s != nil {
		f.row("stopped", fmt.Sprintf("%s by %s at %s%s", s.By, s.Actor, cell(s.At), because(s.Reason)))
	}
	f.row("expected", counts(e.Totals.Expected))
	if others := counts(e.Totals.Others); others != "" {
		f.row("others", others)
	}
	if e.Budget != nil {
		p.budget(f)
	}
	if e.Forgotten {
		f.row("endpoints", "forgotten: older than the history; the totals are the last ones")
	}
	f.row("expires", e.ExpiresAt)
	f.row("log", e.Sequence)
	if err := f.end(); err != nil {
		return err
	}
	if err := p.printWaves(w, now, width); err != nil {
		return err
	}
	p.printFailures(w)
	return nil
}

// budget says how much of its budget an exec has used. One that has used it up is halted as long as there is something to
// call off: those that run go on anyway.
func (p picture) budget(f table) {
	e := p.exec
	if n := e.Budget.MaxFailures; n != nil {
		text := fmt.Sprintf("%d of %d allowed", e.FailureCount, *n)
		if e.FailureCount > *n && e.Stopped == nil && p.ended() {
			text += "; it did not halt, as nothing was left to call off"
		}
		f.row("failures", text)
	}
	if n := e.Budget.MaxParallel; n != nil {
		f.row("at once", fmt.Sprintf("%s at most, those that failed included (%d)", plural(*n, "endpoint"), e.FailureCount))
	}
}

func (p picture) status() string {
	if p.exec.Paused && !p.ended() {
		return p.exec.Status + ", paused"
	}
	return p.exec.Status
}

// printWaves prints a line for each wave; where that is too long for the terminal, bar and states stand below it.
func (p picture) printWaves(w io.Writer, now time.Time, width int) error {
	if len(p.waves) == 0 {
		return nil
	}
	line := p.axis(now)
	var b bytes.Buffer
	t := newTable(&b, "WAVE", "WHO", "STATE", "TIME", "WHEN")
	for _, x := range p.waves {
		t.row(x.Wave, who(x.Timing), x.State, line.wave(x), p.whenOf(x, now))
	}
	if err := t.end(); err != nil {
		return err
	}
	rows := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	room, longest := 0, 0
	ends := []string{"ENDPOINTS"}
	for _, x := range p.waves {
		ends = append(ends, strings.TrimRight(bar(x.Totals)+"  "+statesOf(x.Totals), " "))
	}
	for i, row := range rows {
		room, longest = max(room, len([]rune(row))), max(longest, len([]rune(ends[i])))
	}
	narrow := width > 0 && room+2+longest > width
	fmt.Fprintln(w)
	for i, row := range rows {
		switch {
		case !narrow:
			fmt.Fprintf(w, "%-*s  %s\n", room, row, ends[i])
		case i == 0:
			fmt.Fprintln(w, row)
		default:
			fmt.Fprintf(w, "%s\n      %s\n", row, ends[i])
		}
	}
	fmt.Fprintln(w, legend)
	return nil
}

// whenOf says when a wave went out, or what it waits for.
func (p picture) whenOf(x client.Wave, now time.Time) string {
	switch {
	case x.Size == 0:
		return "nobody is in it"
	case x.ReleasedAt != nil && x.Dispatched < x.Size:
		return fmt.Sprintf("since %s, %d of %d out", clock(*x.ReleasedAt, now), x.Dispatched, x.Size)
	case x.ReleasedAt != nil:
		return "out since " + clock(*x.ReleasedAt, now)
	case x.State == "stopped":
		return "does not go out"
	case x.State == "paused" && p.exec.Paused:
		return "when the exec is resumed"
	case x.After || x.Pause || x.DueAt == nil:
		return goesOut(x.Timing)
	}
	text := "at " + clock(*x.DueAt, now)
	if left := x.DueAt.Sub(now); left >= time.Second {
		text += " (in " + span(left) + ")"
	}
	return text
}

// clock is a time of day, with its date when that is not today's.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

func statesOf(t client.Totals) string {
	expected, others := counts(t.Expected), counts(t.Others)
	switch {
	case others == "":
		return expected
	case expected == "":
		return "others: " + others
	}
	return expected + "; others: " + others
}

// lineCells is how wide a time line is, barCells a bar.
const lineCells, barCells = 24, 20

// axis is the time that the lines of all waves have in common: from the request of the exec to the last time that is
// known, the present among them while it goes on.
type axis struct {
	from, to, now time.Time
	ended         bool
}

func (p picture) axis(now time.Time) axis {
	a := axis{now: now, ended: p.ended()}
	known := func(t *time.Time) {
		if t == nil || t.IsZero() {
			return
		}
		if a.from.IsZero() || t.Before(a.from) {
			a.from = *t
		}
		if t.After(a.to) {
			a.to = *t
		}
	}
	known(p.exec.InitiatedAt)
	if !a.ended {
		known(&now)
	}
	if p.exec.Stopped != nil {
		known(p.exec.Stopped.At)
	}
	for _, x := range p.waves {
		known(x.ReleasedAt)
		known(x.DispatchedAt)
		if a.planned(x) {
			known(x.DueAt)
		}
	}
	return a
}

// planned reports whether it is known when a wave is going to go out.
func (a axis) planned(x client.Wave) bool {
	return x.ReleasedAt == nil && x.DueAt != nil && !x.After && !x.Pause && x.State != "stopped"
}

// cell is the place of a time, 0 to lineCells-1.
func (a axis) cell(t time.Time) int {
	whole := a.to.Sub(a.from)
	if whole <= 0 {
		return 0
	}
	at := float64(t.Sub(a.from)) / float64(whole) * (lineCells - 1)
	return min(max(int(at+0.5), 0), lineCells-1)
}

// wave draws the line of a wave: ● from when it went out, ━ while it went out and is answered, ○ when it is due.
func (a axis) wave(x client.Wave) string {
	cells := slices.Repeat([]rune{'·'}, lineCells)
	switch {
	case x.ReleasedAt != nil:
		from, to := a.cell(*x.ReleasedAt), a.cell(*x.ReleasedAt)
		if x.DispatchedAt != nil {
			to = a.cell(*x.DispatchedAt)
		}
		if !a.ended && (x.State == "sent" || x.State == "releasing") {
			to = a.cell(a.now)
		}
		for i := from; i <= to; i++ {
			cells[i] = '━'
		}
		cells[from] = '●'
	case a.planned(x):
		cells[a.cell(*x.DueAt)] = '○'
	}
	return string(cells)
}

const legend = "● went out  ━ going out, being answered  ○ due\n" +
	"█ succeeded  x failed  - skipped  ? no answer  ▓ running  ▒ sent  ░ not yet"

// mark is how a state looks in a bar.
func mark(state events.TargetState) rune {
	switch state {
	case events.StateSucceeded:
		return '█'
	case events.StateFailed, events.StateTimedOut, events.StateKilled:
		return 'x'
	case events.StateSkipped:
		return '-'
	case events.StateExpired, events.StateUnknown:
		return '?'
	case events.StateRunning:
		return '▓'
	case events.StateSent, events.StateReceived:
		return '▒'
	}
	return '░'
}

// marks are in the order of a bar: what has ended, what runs, what has not begun.
func marks() []rune { return []rune("█x-?▓▒░") }

// bar shows the shares of the states in barCells cells. Every mark that there is has at least one, so that a single
// failure among thousands is seen.
func bar(t client.Totals) string {
	n := map[rune]int{}
	all := 0
	for _, side := range []map[string]int{t.Expected, t.Others} {
		for state, count := range side {
			n[mark(events.TargetState(state))] += max(count, 0)
			all += max(count, 0)
		}
	}
	if all == 0 {
		return strings.Repeat("·", barCells)
	}
	cells := shares(n, all)
	var b strings.Builder
	for _, m := range marks() {
		b.WriteString(strings.Repeat(string(m), cells[m]))
	}
	return b.String()
}

// shares divides barCells: one for every mark that there is, the rest by the largest remainders.
func shares(n map[rune]int, all int) map[rune]int {
	cells := map[rune]int{}
	rest := map[rune]float64{}
	left := barCells
	for m, count := range n {
		if count == 0 {
			continue
		}
		exact := float64(count) / float64(all) * barCells
		cells[m] = max(1, int(exact))
		rest[m] = exact - float64(cells[m])
		left -= cells[m]
	}
	order := slices.SortedFunc(maps.Keys(cells), func(a, b rune) int { return cmp.Or(cmp.Compare(rest[b], rest[a]), cmp.Compare(a, b)) })
	for i := 0; left > 0; i++ {
		cells[order[i%len(order)]]++
		left--
	}
	for left < 0 { // the cells that went to rare marks are the most frequent one's
		most := slices.MaxFunc(order, func(a, b rune) int { return cmp.Compare(cells[a], cells[b]) })
		cells[most]--
		left++
	}
	return cells
}

// tailLines is how much of each output a group of failures shows.
const tailLines = 3

func (p picture) printFailures(w io.Writer) {
	if len(p.failures) == 0 {
		return
	}
	fmt.Fprintln(w, "\nfailures, by what they have in common:")
	for _, x := range p.failures {
		text := fmt.Sprintf("%s: %s", plural(x.Count, "endpoint"), x.State)
		if x.ExitCode != nil {
			text += fmt.Sprintf(", exit code %d", *x.ExitCode)
		}
		if x.Reason != "" {
			text += ", " + cell(x.Reason)
		}
		names := x.PCs
		if len(names) > maxNames {
			names = names[:maxNames]
		}
		text += "  " + cell(names)
		if more := x.Count - len(names); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		fmt.Fprintln(w, "  "+text)
		printTail(w, x.Stdout)
		printTail(w, x.Stderr)
	}
	if len(p.failures) == maxFailures {
		fmt.Fprintln(w, "  … there may be more: the largest groups are shown")
	}
}

// printTail prints the last lines of an output.
func printTail(w io.Writer, text string) {
	text = strings.TrimRight(printable(text), "\n \t")
	if text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	for _, line := range lines[max(0, len(lines)-tailLines):] {
		fmt.Fprintln(w, "    | "+line)
	}
}

// lines is what print writes, as lines.
func (p picture) lines(now time.Time, width int) ([]string, error) {
	var b bytes.Buffer
	if err := p.print(&b, now, width); err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n"), nil
}

// changes are the differences between two pictures of one exec, a line each; all that there is when before is zero.
func changes(before, after picture) []string {
	var lines []string
	if b, a := before.headline(), after.headline(); a != b {
		lines = append(lines, a)
	}
	for i, x := range after.waves {
		line := waveLine(x)
		if i >= len(before.waves) || waveLine(before.waves[i]) != line {
			lines = append(lines, line)
		}
	}
	known := map[string]bool{}
	for _, x := range before.failures {
		known[failureLine(x)] = true
	}
	for _, x := range after.failures {
		if line := failureLine(x); !known[line] {
			lines = append(lines, line)
		}
	}
	return lines
}

// headline is the exec in one line.
func (p picture) headline() string {
	if p.exec.ExecID == "" {
		return ""
	}
	text := "exec  " + p.status()
	if s := p.exec.Stopped; s != nil {
		text += ", " + s.By + " by " + s.Actor + because(s.Reason)
	}
	if p.exec.Outcome != "" {
		text += ", " + p.exec.Outcome
	}
	if p.exec.Reason != "" {
		text += ": " + p.exec.Reason
	}
	if states := statesOf(p.exec.Totals); p.ended() && states != "" {
		text += " (" + states + ")"
	}
	return cell(text)
}

func waveLine(x client.Wave) string {
	return cell(fmt.Sprintf("wave %d (%s)  %s  %s", x.Wave, who(x.Timing), x.State, statesOf(x.Totals)))
}

func failureLine(x client.Failure) string {
	text := fmt.Sprintf("failure of %s  %s", plural(x.Count, "endpoint"), x.State)
	if x.ExitCode != nil {
		text += fmt.Sprintf(", exit code %d", *x.ExitCode)
	}
	if x.Reason != "" {
		text += ", " + x.Reason
	}
	for _, stream := range []string{x.Stderr, x.Stdout} {
		if lines := strings.Split(strings.TrimSpace(stream), "\n"); lines[len(lines)-1] != "" {
			return cell(text + ": " + lines[len(lines)-1])
		}
	}
	return cell(text)
}
