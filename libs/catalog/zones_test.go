package catalog

import (
	"archive/zip"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// TestProveZones holds due times and gates against a walk over real minutes that reads the wall clock of each: in every
// zone of Go's database, around every change of its clock from 2026 to 2030, and in zones that have left out a day. The
// walk is written from the words of the rule alone: a time of day that does not exist is due at the first instant after the
// gap, one that exists twice the first time, an interval follows elapsed time; bounds and windows are read on the wall.
// Without KANADE_PROVE=full a sample of zones is drawn; KANADE_SEED repeats it.
func TestProveZones(t *testing.T) {
	long(t)
	seed := proofSeed(t)
	r := rand.New(rand.NewPCG(seed, 1))
	names := zoneNames(t)
	all := len(names)
	if os.Getenv("KANADE_PROVE") != "full" {
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		names = append([]string{"Australia/Lord_Howe", "Africa/Cairo", "America/Havana"}, names[:4]...)
	}
	var n zoneCounts
	for _, name := range names {
		loc := zone(t, name)
		for _, change := range changes(loc, 2026, 2030) {
			n.around(t, r, loc, change)
		}
	}
	for name, day := range map[string]string{"Pacific/Apia": "2011-12-30", "Pacific/Kwajalein": "1993-08-21", "Pacific/Kiritimati": "1994-12-31"} {
		loc, left := zone(t, name), 0
		skipped, err := time.Parse(time.DateOnly, day)
		require.NoError(t, err)
		for _, change := range changes(loc, skipped.Year(), skipped.Year()+1) {
			if jump := wallAt(change, loc).Sub(wallAt(change.Add(-time.Minute), loc)); jump > 23*time.Hour {
				require.Equal(t, day, wallAt(change.Add(-time.Minute), loc).AddDate(0, 0, 1).Format(time.DateOnly), name)
				left++
				for range 4 {
					n.around(t, r, loc, change)
				}
			}
		}
		require.Equal(t, 1, left, "%s left out one day", name)
	}
	t.Logf("PROVED TestProveZones: %d of %d zones, %d changes of the clock, %d schedules, %d due times, %d gates, %d searches for an open gate, seed %d",
		len(names), all, n.changes, n.schedules, n.due, n.gates, n.searches, seed)
}

func proofSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KANADE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "KANADE_SEED")
	}
	t.Logf("seed %d", seed)
	return seed
}

// zoneNames are all names of the database that Go brings along, which time/tzdata is made of.
func zoneNames(t *testing.T) []string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	require.NoError(t, err)
	defer archive.Close()
	var names []string
	for _, f := range archive.File {
		if !strings.HasSuffix(f.Name, "/") {
			names = append(names, f.Name)
		}
	}
	require.Greater(t, len(names), 500)
	slices.Sort(names)
	return names
}

// wallAt is what the wall clock shows, as if it was UTC.
func wallAt(at time.Time, loc *time.Location) time.Time {
	c := at.In(loc)
	return time.Date(c.Year(), c.Month(), c.Day(), c.Hour(), c.Minute(), c.Second(), 0, time.UTC)
}

// changes are the minutes at which a zone's clock is changed in some years, found by reading it every hour; in a zone that
// changes nothing, a minute of each year.
func changes(loc *time.Location, first, last int) []time.Time {
	var found []time.Time
	begin, end := time.Date(first, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(last+1, 1, 1, 0, 0, 0, 0, time.UTC)
	steady := func(from time.Time, d time.Duration) bool {
		return wallAt(from.Add(d), loc).Sub(wallAt(from, loc)) == d
	}
	for hour := begin; hour.Before(end); hour = hour.Add(time.Hour) {
		if steady(hour, time.Hour) {
			continue
		}
		minute := hour
		for steady(minute, time.Minute) {
			minute = minute.Add(time.Minute)
		}
		found = append(found, minute.Add(time.Minute))
	}
	if found == nil {
		for year := first; year <= last; year++ {
			found = append(found, time.Date(year, time.Month(1+year%12), 28, 1, 0, 0, 0, time.UTC))
		}
	}
	return found
}

// walk is some days of real minutes, with what the wall clock shows at each.
type walk struct {
	from   time.Time
	shown  []time.Time
	firsts map[time.Time]int // a reading, and the first minute that shows it
}

func newWalk(from time.Time, days int, loc *time.Location) *walk {
	w := &walk{from: from, firsts: map[time.Time]int{}}
	for i := range days * 24 * 60 {
		shown := wallAt(w.at(i), loc)
		w.shown = append(w.shown, shown)
		if _, before := w.firsts[shown]; !before {
			w.firsts[shown] = i
		}
	}
	return w
}

func (w *walk) at(minute int) time.Time { return w.from.Add(time.Duration(minute) * time.Minute) }

// nominal is when a time on the wall is due: when it is shown first, or at the first instant that shows a later one.
func (w *walk) nominal(civil time.Time) time.Time {
	minute := civil.Truncate(time.Minute)
	if i, is := w.firsts[minute]; is {
		return w.at(i).Add(civil.Sub(minute))
	}
	return w.at(slices.IndexFunc(w.shown, civil.Before))
}

// fixed lists when the times of day of a rule are due, whatever day of the walk they are of.
func (w *walk) fixed(matches func(civil time.Time) bool, second int) []time.Time {
	var due []time.Time
	first, last := w.shown[0], w.shown[len(w.shown)-1]
	for civil := first; civil.Before(last); civil = civil.Add(time.Minute) {
		if matches(civil) {
			due = append(due, w.nominal(civil.Add(time.Duration(second)*time.Second)))
		}
	}
	slices.SortFunc(due, time.Time.Compare)
	return slices.Compact(due)
}

// elapsed lists the minutes whose reading matches, and for readings that were left out the minutes at which a clock that
// nobody has changed would have shown them.
func (w *walk) elapsed(matches func(civil time.Time) bool, second int) []time.Time {
	var due []time.Time
	for i, shown := range w.shown {
		if matches(shown) {
			due = append(due, w.at(i).Add(time.Duration(second)*time.Second))
		}
		if i == 0 {
			continue
		}
		for n, left := 0, w.shown[i-1].Add(time.Minute); left.Before(shown); n, left = n+1, left.Add(time.Minute) {
			if matches(left) {
				due = append(due, w.at(i+n).Add(time.Duration(second)*time.Second))
			}
		}
	}
	slices.SortFunc(due, time.Time.Compare)
	return slices.Compact(due)
}

// zoneCounts is what was compared.
type zoneCounts struct{ changes, schedules, due, gates, searches int }

// zoneRule is one drawn form and what it means: which times on the wall, or for an interval which readings.
type zoneRule struct {
	when     string
	interval bool
	second   int
	matches  func(civil time.Time) bool
}

// around compares schedules of every form over the days around a change of a clock.
func (n *zoneCounts) around(t *testing.T, r *rand.Rand, loc *time.Location, change time.Time) {
	t.Helper()
	n.changes++
	// A day's margin on both sides of what is compared: a time that falls into a gap is due a day later at most.
	w := newWalk(change.AddDate(0, 0, -4), 9, loc)
	from, until := change.AddDate(0, 0, -2).Add(-time.Second), change.AddDate(0, 0, 3)
	for _, rule := range zoneRules(r, w.shown[4*24*60-1], w.shown[4*24*60]) {
		due := w.fixed(rule.matches, rule.second)
		if rule.interval {
			due = w.elapsed(rule.matches, rule.second)
		}
		keys, lasts, open := w.keys(r, w.shown[4*24*60])
		due = slices.DeleteFunc(due, func(at time.Time) bool { return !at.After(from) || at.After(until) || !lasts(at) })
		s, err := ParseSchedule(fmt.Appendf(nil, "%s%stz: %s\nwhen: {%s}\n%s", scheduled, everyone, loc, rule.when, keys), YAML)
		if err != nil && (strings.Contains(err.Error(), "outside") || strings.Contains(err.Error(), "from must be before until")) {
			continue // a calendar's time that its window never lets fire is refused, and so are bounds that meet in a gap
		}
		require.NoError(t, err)
		s.Remember(map[string]*time.Location{loc.String(): loc})
		what := fmt.Sprintf("%s in %s around %s, %s", rule.when, loc, change, strings.ReplaceAll(keys, "\n", "; "))
		got := s.Between(from, until, time.UTC, 1<<20)
		if !slices.Equal(due, got) {
			both := func(a, b []time.Time) []time.Time {
				return slices.DeleteFunc(slices.Clone(a), func(at time.Time) bool { return slices.Contains(b, at) })
			}
			t.Fatalf("%s: too many %v, lost %v", what, both(got, due), both(due, got))
		}
		n.schedules++
		n.due += len(due)
		for i, at := range due {
			if len(due) > 200 && i%19 != 0 {
				continue // of every minute some
			}
			require.Equal(t, !open(wallAt(at, loc)), s.Closed(at, Gates{}) == events.TickReasonWindow, "%s: gate at %s", what, at)
			n.gates++
		}
		n.search(t, r, w, s, lasts, open, what)
	}
}

// search looks for the next open gate from random minutes, where the walk goes as far.
func (n *zoneCounts) search(t *testing.T, r *rand.Rand, w *walk, s *Schedule, lasts, open func(time.Time) bool, what string) {
	t.Helper()
	for range 4 {
		begin := 3*24*60 + r.IntN(2*24*60)
		for i := begin; i < len(w.shown); i++ {
			if !lasts(w.at(i)) || !open(w.shown[i]) {
				continue
			}
			got, ok := s.NextOpen(w.at(begin), Gates{})
			require.True(t, ok, "%s: open from %s", what, w.at(begin))
			require.Equal(t, w.at(i), got, "%s: open from %s", what, w.at(begin))
			n.searches++
			break
		}
	}
}

// keys draws bounds and a window, and what they mean: of instants, and of readings.
func (w *walk) keys(r *rand.Rand, shown time.Time) (text string, lasts, open func(time.Time) bool) {
	var from, until time.Time
	bound := func(key string, days int) time.Time {
		day := shown.Truncate(24*time.Hour).AddDate(0, 0, days)
		if r.IntN(2) == 0 {
			text += fmt.Sprintf(", %s: %s", key, day.Format(time.DateOnly))
			return w.nominal(day)
		}
		at := w.nominal(day.Add(time.Duration(r.IntN(24*60)) * time.Minute))
		text += fmt.Sprintf(", %s: '%s'", key, at.Format(time.RFC3339))
		return at
	}
	if r.IntN(3) == 0 {
		from = bound("from", -r.IntN(2))
	}
	if r.IntN(3) == 0 {
		until = bound("until", 1+r.IntN(2))
	}
	if text != "" {
		text = "active: {" + text[2:] + "}\n"
	}
	lasts = func(at time.Time) bool { return !at.Before(from) && (until.IsZero() || at.Before(until)) }
	open = func(time.Time) bool { return true }
	if r.IntN(2) == 0 {
		return text, lasts, open
	}
	// Near the change, or anywhere.
	start := (shown.Hour()*60 + shown.Minute() + r.IntN(240) - 150 + 24*60) % (24 * 60)
	if r.IntN(3) == 0 {
		start = r.IntN(24 * 60)
	}
	end := (start + 1 + r.IntN(24*60-2)) % (24 * 60)
	if r.IntN(2) == 0 {
		end = (start + 1 + r.IntN(90)) % (24 * 60)
	}
	text += fmt.Sprintf("constraints: {window: '%02d:%02d-%02d:%02d'}\n", start/60, start%60, end/60, end%60)
	var inside [24 * 60]bool
	for minute := start; minute != end; minute = (minute + 1) % (24 * 60) {
		inside[minute] = true
	}
	return text, lasts, func(civil time.Time) bool { return inside[civil.Hour()*60+civil.Minute()] }
}

// zoneRules draws a rule of every form, at or near the readings before and after a change.
func zoneRules(r *rand.Rand, before, after time.Time) []zoneRule {
	near := func() time.Time {
		return []time.Time{before, after}[r.IntN(2)].Add(time.Duration(r.IntN(240)-120) * time.Minute)
	}
	is := func(h, m int) func(time.Time) bool {
		return func(c time.Time) bool { return c.Hour() == h && c.Minute() == m }
	}
	both := func(all ...func(time.Time) bool) func(time.Time) bool {
		return func(c time.Time) bool {
			return !slices.ContainsFunc(all, func(f func(time.Time) bool) bool { return !f(c) })
		}
	}
	weekday := func(days ...time.Weekday) func(time.Time) bool {
		return func(c time.Time) bool { return slices.Contains(days, c.Weekday()) }
	}
	any := func(time.Time) bool { return true }
	a, b, c, d, e := near(), near(), near(), near(), near()
	nth, last := (d.Day()+6)/7, d.AddDate(0, 0, 7).Month() != d.Month()
	step, hours := []int{1, 5, 15, 20, 30}[r.IntN(5)], []int{1, 2, 3, 4, 6, 8, 12}[r.IntN(7)]
	second := r.IntN(60)
	rules := []zoneRule{
		{fmt.Sprintf("calendar: {at: '%02d:%02d'}", a.Hour(), a.Minute()), false, 0, is(a.Hour(), a.Minute())},
		{"calendar: {at: '00:00'}", false, 0, is(0, 0)},
		{
			fmt.Sprintf("calendar: {at: '%d:%02d', days: [sat-sun, 3]}", b.Hour(), b.Minute()), false, 0,
			both(is(b.Hour(), b.Minute()), weekday(time.Saturday, time.Sunday, time.Wednesday)),
		},
		{
			fmt.Sprintf("calendar: {at: '%d:%02d', days: [MON-fri]}", b.Hour(), b.Minute()), false, 0,
			both(is(b.Hour(), b.Minute()), weekday(1, 2, 3, 4, 5)),
		},
		{
			fmt.Sprintf("calendar: {at: '%02d:%02d', days: ['%s#%d']}", d.Hour(), d.Minute(), d.Weekday().String()[:3], nth), false, 0,
			both(is(d.Hour(), d.Minute()), weekday(d.Weekday()), func(c time.Time) bool { return (c.Day()+6)/7 == nth }),
		},
		{fmt.Sprintf("calendar: {at: '%s'}", c.Format("2006-01-02 15:04")), false, 0, c.Truncate(time.Minute).Equal},
		{
			fmt.Sprintf("cron: '%d,%d %d-%d * * *'", a.Minute(), b.Minute(), min(a.Hour(), b.Hour()), max(a.Hour(), b.Hour())), false, 0,
			func(x time.Time) bool {
				return (x.Minute() == a.Minute() || x.Minute() == b.Minute()) && x.Hour() >= min(a.Hour(), b.Hour()) && x.Hour() <= max(a.Hour(), b.Hour())
			},
		},
		{
			fmt.Sprintf("cron: '*/%d %d %d * *'", step, c.Hour(), c.Day()), false, 0,
			func(x time.Time) bool { return x.Minute()%step == 0 && x.Hour() == c.Hour() && x.Day() == c.Day() },
		},
		{
			fmt.Sprintf("cron: '%d %d %d %d %d'", c.Minute(), c.Hour(), c.Day(), c.Month(), e.Weekday()), false, 0,
			both(is(c.Hour(), c.Minute()), func(x time.Time) bool {
				return x.Month() == c.Month() && (x.Day() == c.Day() || x.Weekday() == e.Weekday())
			}),
		},
		{fmt.Sprintf("cron: '%d %d %d * * *'", second, e.Minute(), e.Hour()), false, second, is(e.Hour(), e.Minute())},
		{"cron: '* * * * *'", true, 0, any},
		{fmt.Sprintf("cron: '*/%d * * * *'", step), true, 0, func(x time.Time) bool { return x.Minute()%step == 0 }},
		{
			fmt.Sprintf("cron: '%d */%d * * *'", a.Minute(), hours), true, 0,
			func(x time.Time) bool { return x.Minute() == a.Minute() && x.Hour()%hours == 0 },
		},
		{
			fmt.Sprintf("cron: '%d %d,%d * * * %d'", second, a.Minute(), b.Minute(), e.Weekday()), true, second,
			func(x time.Time) bool {
				return (x.Minute() == a.Minute() || x.Minute() == b.Minute()) && x.Weekday() == e.Weekday()
			},
		},
	}
	if last {
		rules = append(rules, zoneRule{
			fmt.Sprintf("calendar: {at: '%02d:%02d', days: [%sL]}", d.Hour(), d.Minute(), d.Weekday().String()[:3]), false, 0,
			both(is(d.Hour(), d.Minute()), weekday(d.Weekday()), func(c time.Time) bool { return c.AddDate(0, 0, 7).Month() != c.Month() }),
		})
	}
	return rules
}

// long skips a test that takes long where only short ones are asked for, as beside the race detector.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long: run it without -short")
	}
}
