package catalog

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"unicode"
)

// ParseSize reads a number of bytes with a unit: B, KB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024); decimals
// and a blank before the unit are allowed, a bare number is not, except 0. The result is at least 0; what does not fit an
// int64 is refused.
func ParseSize(text string) (int64, error) {
	if strings.TrimSpace(text) == "0" {
		return 0, nil
	}
	n, err := addQuantities(text, sizeUnit)
	switch {
	case err == nil:
		return int64(n), nil
	case errors.Is(err, errTooLarge):
		return 0, fmt.Errorf("%q is more than the limit of 8 EiB", text)
	}
	return 0, fmt.Errorf("expected a size like 32KiB, got %q", text)
}

func sizeUnit(name string) uint64 {
	switch name {
	case "B":
		return 1
	case "KB":
		return 1e3
	case "MB":
		return 1e6
	case "GB":
		return 1e9
	case "KiB":
		return 1 << 10
	case "MiB":
		return 1 << 20
	case "GiB":
		return 1 << 30
	}
	return 0
}

var (
	errNotQuantity = errors.New("not a number with a unit")
	errTooLarge    = errors.New("too large")
)

// addQuantities reads numbers that are each followed by a unit, and adds them up; unit gives a unit's size, 0 for none.
// The sum fits an int64.
func addQuantities(text string, unit func(string) uint64) (uint64, error) {
	var sum uint64
	rest := strings.TrimSpace(text)
	if rest == "" {
		return 0, errNotQuantity
	}
	for rest != "" {
		var whole, fraction, name string
		whole, rest = take(rest, isDigit)
		if decimals, found := strings.CutPrefix(rest, "."); found && whole != "" {
			if fraction, rest = take(decimals, isDigit); fraction == "" {
				return 0, errNotQuantity
			}
		}
		name, rest = take(strings.TrimLeftFunc(rest, unicode.IsSpace), unicode.IsLetter)
		size := unit(name)
		if whole == "" || size == 0 {
			return 0, errNotQuantity
		}
		n, ok := multiply(whole, fraction, size)
		sum += n
		if !ok || sum > math.MaxInt64 {
			return 0, errTooLarge
		}
		rest = strings.TrimLeftFunc(rest, unicode.IsSpace)
	}
	return sum, nil
}

// multiply computes whole.fraction × size, rounded down; not ok means that it does not fit an int64.
func multiply(whole, fraction string, size uint64) (uint64, bool) {
	var n uint64
	for _, c := range whole {
		high, low := bits.Mul64(n, 10)
		if high != 0 || low > math.MaxInt64 {
			return 0, false
		}
		n = low + uint64(c-'0')
	}
	high, n := bits.Mul64(n, size)
	if high != 0 || n > math.MaxInt64 {
		return 0, false
	}
	// 18 digits fit an uint64, and those after them are below one ten-thousandth of the largest unit's parts.
	part, scale := uint64(0), uint64(1)
	for _, c := range fraction[:min(len(fraction), 18)] {
		part, scale = part*10+uint64(c-'0'), scale*10
	}
	high, low := bits.Mul64(part, size)
	part, _ = bits.Div64(high, low, scale)
	return n + part, n+part <= math.MaxInt64
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

// take splits a text after its longest beginning that consists of such runes.
func take(text string, such func(rune) bool) (head, rest string) {
	end := strings.IndexFunc(text, func(r rune) bool { return !such(r) })
	if end < 0 {
		end = len(text)
	}
	return text[:end], text[end:]
}
