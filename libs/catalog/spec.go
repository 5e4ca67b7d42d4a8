package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

// spec is a parsed calendar or cron form. It speaks of civil time only: readings of a wall clock, held in a time.Time in
// UTC; due.go says which instants these are in a zone.
type spec struct {
	// date is the only civil time, unless zero.
	date time.Time
	cron *cron.SpecSchedule
	// interval is a cron whose hour field is * or */n: it counts elapsed time rather than naming times of day.
	interval bool
}

// next is the first civil time after another.
func (s *spec) next(after time.Time) (time.Time, bool) {
	if s.cron == nil {
		return s.date, s.date.After(after)
	}
	t := s.cron.Next(after)
	return t, !t.IsZero()
}

// spec parses the calendar or cron form; nil without error for the other forms.
func (w *When) spec() (*spec, error) {
	switch {
	case w.Calendar != nil:
		return w.Calendar.spec()
	case w.Cron != "":
		return parseCron(w.Cron)
	}
	return nil, nil
}

func (c *Calendar) spec() (*spec, error) {
	at, date, ok := parseAt(c.At)
	switch {
	case !ok:
		return nil, fmt.Errorf("expected HH:MM or YYYY-MM-DD HH:MM, got %q", c.At)
	case date:
		return &spec{date: at}, nil
	}
	days := make([]string, len(c.Days))
	for i, day := range c.Days {
		field, err := dayField(day)
		if err != nil {
			return nil, err
		}
		days[i] = field
	}
	if len(days) == 0 {
		days = []string{"*"}
	}
	return parseCron(fmt.Sprintf("%d %d * * %s", at.Minute(), at.Hour(), strings.Join(days, ",")))
}

// parseAt reads the time of a calendar form, as civil time; date tells that it names a day as well.
func parseAt(text string) (at time.Time, date, ok bool) {
	if at, err := time.Parse("15:04", text); err == nil {
		return at, false, true
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04", "2006/01/02 15:04", "2006/01/02T15:04"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true, true
		}
	}
	return time.Time{}, false, false
}

// dayField translates one entry of days into the cron library's day-of-week field: names to numbers, tue#2 to 2#2, friL
// to 5#l. Sunday is 0, and 7 where it ends a range.
func dayField(token string) (string, error) {
	bad := fmt.Errorf("expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got %q", token)
	text := strings.ToLower(token)
	if text == "*" {
		return "*", nil
	}
	if first, second, isRange := strings.Cut(text, "-"); isRange {
		from, to := weekday(first), weekday(second)
		if to == 0 && from > 0 {
			to = 7
		}
		if from < 0 || to < 0 {
			return "", bad
		}
		if from > to {
			return "", fmt.Errorf("the range %q runs backwards", token)
		}
		return fmt.Sprintf("%d-%d", from, to), nil
	}
	if name, nth, found := strings.Cut(text, "#"); found {
		n, err := strconv.Atoi(nth)
		if day := weekday(name); day >= 0 && err == nil && len(nth) == 1 && 1 <= n && n <= 5 {
			return fmt.Sprintf("%d#%d", day%7, n), nil
		}
		return "", bad
	}
	if name, last := strings.CutSuffix(text, "l"); last && weekday(name) >= 0 {
		return fmt.Sprintf("%d#l", weekday(name)%7), nil
	}
	if day := weekday(text); day >= 0 {
		return strconv.Itoa(day), nil
	}
	return "", bad
}

// weekday gives 0 for Sunday to 6 for Saturday, 7 for the number 7, -1 for anything else.
func weekday(text string) int {
	if len(text) == 1 && text[0] >= '0' && text[0] <= '7' {
		return int(text[0] - '0')
	}
	return slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, text)
}

// searchYears is how far ahead a next time is looked for: 29 February can be 8 years away.
const searchYears = 9

// parseCron reads 5 fields (minute, hour, day of month, month, day of week), or 6 with seconds first. Day of month and day
// of week are joined by or when both are restricted. L, W and # are understood; zones, @words and years are not.
func parseCron(text string) (*spec, error) {
	fields := strings.Fields(strings.ToLower(text))
	if len(fields) != 5 && len(fields) != 6 {
		return nil, fmt.Errorf("expected 5 fields, or 6 with seconds first, got %d in %q", len(fields), text)
	}
	for _, f := range fields {
		if slices.Contains(strings.Split(f, ","), "") {
			return nil, fmt.Errorf("an entry is empty in %q", f)
		}
	}
	p, err := cron.TryNewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow |
		cron.Extended | cron.DowOrDom)
	if err != nil {
		return nil, err
	}
	schedule, err := p.WithMaxSearchYears(searchYears).Parse(strings.Join(fields, " "))
	if err != nil {
		return nil, fmt.Errorf("not a cron expression: %w", err)
	}
	s, is := schedule.(*cron.SpecSchedule)
	if !is {
		return nil, errors.New("not a cron expression of fields")
	}
	s.Location = time.UTC
	return &spec{cron: s, interval: strings.HasPrefix(fields[len(fields)-4], "*")}, nil
}
