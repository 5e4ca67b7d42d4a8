package systemtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
)

// form is one form of a schedule, with what is needed to know its nominal times without asking the code under test.
type form struct {
	// when, tz and target are what the document says.
	when, tz, target string
	// at are times of day on the wall clock of tz, as minutes; days are the days on which they count, all if empty.
	at   []int
	days []time.Weekday
	// minutes are those of every hour that passes, for a form that follows elapsed time.
	minutes []int
	// every is the interval of a form that fires endpoint by endpoint, members are its endpoints.
	every   time.Duration
	members []string
}

// document is the form as YAML.
func (f form) document(id, job string) string {
	return fmt.Sprintf("id: %s\njob_id: %s\nwhen: %s\ntz: %s\ntarget: %s\n", id, job, f.when, f.tz, f.target)
}

// nominal walks over every minute in (after, until]. A time of day is due at the first minute of its day whose reading
// is not before it: where the clock is put forward over it that is the end of the gap, and where it comes twice the first
// of the two.
func (f form) nominal(t testing.TB, after, until time.Time) []time.Time {
	t.Helper()
	zone := time.UTC
	if strings.Contains(f.tz, "/") {
		var err error
		zone, err = time.LoadLocation(f.tz)
		require.NoError(t, err)
	}
	var due []time.Time
	reached := map[string]bool{} // time of day and date
	// Begun two days early, so that what is reached already on the first day is known.
	for m := after.Truncate(time.Minute).AddDate(0, 0, -2); !m.After(until); m = m.Add(time.Minute) {
		here := m.In(zone)
		is := slices.Contains(f.minutes, here.Minute())
		for _, at := range f.at {
			key := fmt.Sprint(at, here.Format(time.DateOnly))
			if !reached[key] && here.Hour()*60+here.Minute() >= at {
				reached[key] = true
				is = is || len(f.days) == 0 || slices.Contains(f.days, here.Weekday())
			}
		}
		if is && m.After(after) {
			due = append(due, m)
		}
	}
	return due
}

// between asks the code under test for the same.
func (f form) between(t testing.TB, after, until time.Time) []time.Time {
	t.Helper()
	spec, err := catalog.ParseSchedule([]byte(f.document("x", "y")), catalog.YAML)
	require.NoError(t, err)
	return spec.Between(after, until, time.UTC, 1<<20)
}
