package catalog

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Duration is a length of time as the operator wrote it ("90s", "1h 30m"); documents keep the text. Parse gives its value.
type Duration string

// Parse gives the value; see [ParseDuration] for the errors.
func (d Duration) Parse() (time.Duration, error) { return ParseDuration(string(d)) }

// value is Parse for a document that has been validated; what does not parse counts as zero.
func (d *Duration) value() time.Duration {
	if d == nil {
		return 0
	}
	v, _ := d.Parse()
	return v
}

// ParseDuration reads a humantime duration: numbers with units, added up, blanks anywhere between them, decimals allowed:
// "90s", "5m", "1h 30m", "1.5h", "2days". "0" is the only number that needs no unit; there are no signs. A month is 30.44
// days and a year 365.25. The result is at least 0; what does not fit a time.Duration (292 years) is refused. Fractions
// of a nanosecond are dropped.
func ParseDuration(text string) (time.Duration, error) {
	if strings.TrimSpace(text) == "0" {
		return 0, nil
	}
	n, err := addQuantities(text, durationUnit)
	switch {
	case err == nil:
		return time.Duration(n), nil
	case errors.Is(err, errTooLarge):
		return 0, fmt.Errorf("%q is longer than the limit of 292 years", text)
	}
	return 0, fmt.Errorf("expected a duration like 30s, got %q", text)
}

// FormatDuration writes a duration that ParseDuration reads back as the same: "1h 30m", "0s". Less than zero is written as
// zero.
func FormatDuration(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{
		{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
		{"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", 1},
	}
	var parts []string
	for _, u := range units {
		if n := d / u.size; n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", n, u.name))
			d -= n * u.size
		}
	}
	if parts == nil {
		return "0s"
	}
	return strings.Join(parts, " ")
}

// durationUnit gives a unit in nanoseconds; letter case counts (m is a minute, M a month), 0 is unknown.
func durationUnit(name string) uint64 {
	const second = uint64(time.Second)
	switch name {
	case "ns", "nsec", "nanos":
		return 1
	case "us", "usec", "µs":
		return 1e3
	case "ms", "msec", "millis":
		return 1e6
	case "s", "sec", "secs", "second", "seconds":
		return second
	case "m", "min", "mins", "minute", "minutes":
		return 60 * second
	case "h", "hr", "hrs", "hour", "hours":
		return 3600 * second
	case "d", "day", "days":
		return 86_400 * second
	case "w", "wk", "wks", "week", "weeks":
		return 7 * 86_400 * second
	case "M", "month", "months":
		return 2_630_016 * second
	case "y", "yr", "yrs", "year", "years":
		return 31_557_600 * second
	}
	return 0
}
