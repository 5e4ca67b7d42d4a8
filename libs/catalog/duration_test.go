package catalog

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, " 0 ": 0, "0s": 0, "90s": 90 * time.Second, "5m": 5 * time.Minute,
		"1h 30m": 90 * time.Minute, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "2days": 2 * day,
		" 1 hour 2 mins ": 62 * time.Minute, "1s 1s": 2 * time.Second,
		"7ns": 7, "7nsec": 7, "7nanos": 7, "7us": 7000, "7usec": 7000, "7µs": 7000, "7ms": 7e6, "7msec": 7e6, "7millis": 7e6,
		"1sec": time.Second, "1secs": time.Second, "1second": time.Second, "1seconds": time.Second,
		"1min": time.Minute, "1mins": time.Minute, "1minute": time.Minute, "1minutes": time.Minute,
		"1hr": time.Hour, "1hrs": time.Hour, "1hours": time.Hour, "1d": day, "1day": day,
		"1w": 7 * day, "1wk": 7 * day, "1wks": 7 * day, "1week": 7 * day, "1weeks": 7 * day,
		"1M": 2_630_016 * time.Second, "1month": 2_630_016 * time.Second, "2months": 5_260_032 * time.Second,
		"1y": 31_557_600 * time.Second, "1yr": 31_557_600 * time.Second, "1yrs": 31_557_600 * time.Second, "1years": 31_557_600 * time.Second,
		"0.000000001s": 1, "0.0000000019s": 1, "1.0000000000000000000000000000001s": time.Second,
		"9223372036854775807ns": 1<<63 - 1, "0.999999999999999999y": 31_557_600*time.Second - 1,
		"00000000000000000000000000001s": time.Second,
	} {
		got, err := ParseDuration(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", " ", "soon", "5", "00", "-1s", "+1s", "1.h", ".5h", "1..5h", "1,5h", "1h30", "s", "1H", "1S", "1 hour and 2 minutes", "1x", "1µ", "1 0s", "١s", "1e3s", "1\x00s"} {
		_, err := ParseDuration(text)
		require.ErrorContains(t, err, "expected a duration like 30s, got ", text)
	}
	for _, text := range []string{"293y", "9223372036854775808ns", "9223372036854775807ns 1ns", "99999999999999999999999999y", "18446744073709551616ns", strings.Repeat("200y ", 10)} {
		_, err := ParseDuration(text)
		require.ErrorContains(t, err, "is longer than the limit of 292 years", text)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1B": 1, "1KB": 1e3, "1MB": 1e6, "2 GB": 2e9, "1KiB": 1 << 10, "1.5MiB": 3 << 19, "1GiB": 1 << 30} {
		got, err := ParseSize(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "1", "1kb", "1 k", "-1B", "1TB", "B"} {
		_, err := ParseSize(text)
		require.ErrorContains(t, err, "expected a size like 32KiB, got ", text)
	}
	_, err := ParseSize("9000000000GiB")
	require.ErrorContains(t, err, "is more than the limit of 8 EiB")
}

func TestFormattedDurationsAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(0).Draw(t, "d"))
		text := FormatDuration(d)
		back, err := ParseDuration(text)
		if err != nil || back != d {
			t.Fatalf("%d is %q is %d, %v", d, text, back, err)
		}
	})
	require.Equal(t, "0s", FormatDuration(-1))
	require.Equal(t, "1d 2h 3m 4s", FormatDuration(26*time.Hour+3*time.Minute+4*time.Second))
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"0", "1h 30m", "1.5h", "2days", "99999999999999999999y", "0.9999999999999999999999y", "1µs", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err == nil && d < 0 {
			t.Fatalf("%q is %d", text, d)
		}
		if back, err := ParseDuration(FormatDuration(d)); err != nil || back != d {
			t.Fatalf("%q is %d is %d, %v", text, d, back, err)
		}
		if n, err := ParseSize(text); err == nil && n < 0 {
			t.Fatalf("%q is %d", text, n)
		}
	})
}
