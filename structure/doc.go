// Package structure holds the tests of what the whole workspace keeps to and no compiler checks: which package may import
// which, what a program links, and that every module stands by itself. They read what `go list` says; there is no code
// here.
//
// The rules are those of docs/architecture.md. A change of a rule is made there and here, together.
package structure
