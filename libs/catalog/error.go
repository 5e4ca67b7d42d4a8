package catalog

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind says at which gate a document was refused. Of several problems the earliest gate counts.
type Kind int

const (
	// Malformed is text that is not one YAML or JSON document.
	Malformed Kind = iota + 1
	// Shape is a readable document with an unknown, repeated or missing key, a value of the wrong type, a null where none
	// may be, or a word that is none of the words known there.
	Shape
	// Invalid is a document of the right shape that breaks a rule or a limit.
	Invalid
	// Unsupported is a document that keeps all rules and asks for what is not carried out yet.
	Unsupported
)

// String gives the kind as a word for logs.
func (k Kind) String() string {
	switch k {
	case Malformed:
		return "malformed"
	case Shape:
		return "shape"
	case Invalid:
		return "invalid"
	case Unsupported:
		return "unsupported"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Problem is one thing wrong with a document.
type Problem struct {
	// Path is dotted, with list places in brackets: rollout.waves[0].delay. Empty means the document as a whole.
	Path string
	// Line counts from 1 in the text as sent; 0 when unknown (always for JSON).
	Line int
	// Message says what is wrong, in words for the person who wrote the document.
	Message string
}

// String gives the problem as one readable sentence.
func (p Problem) String() string {
	var b strings.Builder
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Line > 0 {
		fmt.Fprintf(&b, " (line %d)", p.Line)
	}
	return b.String()
}

// Error is every refusal of this package. It has at least one problem, in the order of the document.
type Error struct {
	Kind     Kind
	Problems []Problem
}

// Error joins the problems with "; ".
func (e *Error) Error() string {
	sentences := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		sentences[i] = p.String()
	}
	return strings.Join(sentences, "; ")
}

// maxProblems bounds an error: whoever sent a hundred thousand bad names learns nothing from the last ones.
const maxProblems = 20

// problems collects what is wrong with a document; the zero value is ready.
type problems struct {
	kind  Kind
	list  []Problem
	lines map[string]int
}

func (p *problems) add(kind Kind, path, format string, args ...any) {
	if p.kind == 0 || kind < p.kind {
		p.kind = kind
	}
	if len(p.list) == maxProblems {
		p.list = append(p.list, Problem{Message: "and more"})
	}
	if len(p.list) < maxProblems {
		p.list = append(p.list, Problem{Path: path, Line: p.line(path), Message: fmt.Sprintf(format, args...)})
	}
}

// line finds where a path stands, or the nearest thing around it that stands somewhere.
func (p *problems) line(path string) int {
	for {
		if line := p.lines[path]; line > 0 || path == "" {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return &Error{Kind: p.kind, Problems: p.list}
}

// refuse is an error with a single problem.
func refuse(kind Kind, line int, path, format string, args ...any) *Error {
	return &Error{Kind: kind, Problems: []Problem{{Path: path, Line: line, Message: fmt.Sprintf(format, args...)}}}
}

// join puts a key after a path; keys that would be misread stand quoted in brackets.
func join(path, key string) string {
	switch {
	case key == "" || strings.ContainsAny(key, ".[]\" \t\r\n"):
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	}
	return path + "." + key
}

// place is the path of an item of a list.
func place(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
