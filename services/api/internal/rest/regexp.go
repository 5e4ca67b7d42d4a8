package rest

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// maxExpression is the longest expression, in bytes: a choice of some thousand names. Such a one takes 50 ms to compile.
const maxExpression = 64 << 10

// maxClasses bounds what the classes of an expression are written out to, in bytes: 2000 times \w, or 19 times \W in
// brackets. An expression of 2000 times \w takes 0.2 s and up to 100 MB to compile.
const maxClasses = 256 << 10

var (
	// regexpTokens are the quotations, bracket classes and escapes of an expression that Go accepts.
	regexpTokens  = regexp.MustCompile(`(?s)\\Q.*?(?:\\E|\z)|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\\.`)
	regexpEscapes = regexp.MustCompile(`(?s)\\.`)
)

// compileRegexp compiles an expression in Go's syntax in which \d, \w, \s and their negations, in brackets or not, know
// Unicode, as in the Rust crate regex. \b and \B do not, for no expression of Go can look around: they ask for the ASCII
// letters, digits and _ only, so that `B\b` is found in "Bücher", and `\bÖl` is not found in "ein Öl". What is ASCII in
// Rust ([0-9], [[:alpha:]]) stays so. An expression without these classes is compiled as it is. Errors quote the given
// expression, if it is not longer than maxExpression, also where its classes make it larger than maxClasses or than Go allows.
func compileRegexp(given string) (*regexp.Regexp, error) {
	if len(given) > maxExpression {
		return nil, fmt.Errorf("it has %d bytes, the longest has %d", len(given), maxExpression)
	}
	re, err := regexp.Compile(given)
	if err != nil {
		return nil, err
	}
	room := maxClasses
	write := func(escape string, items func(string) string) string {
		if room < 0 {
			return ""
		}
		written := items(escape)
		if written == "" {
			return escape
		}
		room -= len(written)
		return written
	}
	written := regexpTokens.ReplaceAllStringFunc(given, func(token string) string {
		if token[0] == '[' {
			return regexpEscapes.ReplaceAllStringFunc(token, func(escape string) string { return write(escape, bracketItems) })
		}
		return write(token, bracketClass)
	})
	if written == given {
		return re, nil
	}
	if room >= 0 {
		if re, err = regexp.Compile(written); err == nil {
			return re, nil
		}
	}
	return nil, &syntax.Error{Code: syntax.ErrLarge, Expr: given}
}

// bracketClass is what stands for \d, \w, \s or the negation of one of them; empty for other escapes.
func bracketClass(escape string) string {
	switch escape {
	case `\d`, `\w`, `\s`:
		return "[" + bracketItems(escape) + "]"
	case `\D`, `\W`, `\S`:
		return "[^" + bracketItems(strings.ToLower(escape)) + "]"
	}
	return ""
}

// bracketItems is what stands for them inside of brackets. The last item is never a single character, which a following "-"
// would make a range.
func bracketItems(escape string) string {
	switch escape {
	case `\d`:
		return `\p{Nd}`
	case `\s`:
		return `\x{85}\t-\r\p{Z}`
	case `\w`: // the ranges: joiners, and what is alphabetic but no letter, that is circled and squared letters
		return `\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200C}-\x{200D}` +
			`\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}`
	case `\D`:
		return `\P{Nd}`
	case `\S`: // not as ranges, for (?i) folds them character by character, in 2 ms
		return `\x00-\x08\x0E-\x1F\x7F-\x84\x86-\x9F\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Cn}\p{Co}\p{Cs}`
	case `\W`: // brackets have no negation but of the whole
		var b strings.Builder
		class, err := syntax.Parse(bracketClass(escape), syntax.Perl)
		if err != nil {
			return "" // never: it is a constant
		}
		for r := range slices.Chunk(class.Rune, 2) {
			fmt.Fprintf(&b, `\x{%X}-\x{%X}`, r[0], r[1])
		}
		return b.String()
	}
	return ""
}
