package domain

import (
	"errors"
	"fmt"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Code is the kind of a refusal.
type Code int

// The codes. HTTP gives them as 400, 422, 404, 409 and 412.
const (
	// Invalid: the request breaks a rule.
	Invalid Code = iota + 1
	// Unprocessable: it can be read but not carried out: wrong shape, not supported yet, a key used for another request.
	Unprocessable
	// NotFound: what it names does not exist.
	NotFound
	// Conflict: it contradicts something else that is stored.
	Conflict
	// Precondition: the document is not the one that the client means.
	Precondition
)

// Refusal is a request that is not carried out, with a sentence for the person who sent it. Nothing was written.
type Refusal struct {
	Code     Code
	Sentence string
	// Problems point at places of the body; may be empty.
	Problems []catalog.Problem
}

func (r *Refusal) Error() string { return r.Sentence }

// Refuse makes a refusal without places.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Sentence: fmt.Sprintf(format, args...)}
}

// RefuseField makes a refusal of one field.
func RefuseField(code Code, path, format string, args ...any) *Refusal {
	p := catalog.Problem{Path: path, Message: fmt.Sprintf(format, args...)}
	return &Refusal{Code: code, Sentence: p.String(), Problems: []catalog.Problem{p}}
}

// RefuseDocument turns catalog's refusal of a job or a schedule into ours: 400 whatever is wrong, as kanade 0.43.45 does,
// but 422 for what is not supported yet. Other errors are returned as they are.
func RefuseDocument(err error) error { return refuseCatalog(err, Invalid) }

// RefusePlan is RefuseDocument for the body of an exec, where a wrong shape is 422 and a plan without a target has the
// sentence that scripts know.
func RefusePlan(err error) error {
	var e *catalog.Error
	if errors.As(err, &e) && e.Kind == catalog.Invalid && len(e.Problems) == 1 && e.Problems[0].Path == "target" {
		return &Refusal{Code: Invalid, Sentence: noTarget, Problems: []catalog.Problem{{Path: "target", Message: noTarget}}}
	}
	return refuseCatalog(err, Unprocessable)
}

// RefuseBody is RefuseDocument for the other bodies, where a wrong shape is 422.
func RefuseBody(err error) error { return refuseCatalog(err, Unprocessable) }

const noTarget = "target must specify at least one of `all` / `groups` / `pcs` (or set `rollout.waves`)"

func refuseCatalog(err error, shape Code) error {
	var e *catalog.Error
	if !errors.As(err, &e) {
		return err
	}
	code := Invalid
	switch e.Kind {
	case catalog.Shape:
		code = shape
	case catalog.Unsupported:
		code = Unprocessable
	}
	return &Refusal{Code: code, Sentence: e.Error(), Problems: e.Problems}
}

// CheckID refuses an id that can't be one of a document, endpoint or group; field is the name that the refusal gives it.
func CheckID(field, id string) error {
	if err := events.ValidID(id); err != nil {
		return RefuseField(Invalid, field, "%v", err)
	}
	return nil
}
