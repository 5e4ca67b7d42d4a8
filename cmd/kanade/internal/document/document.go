// Package document reads job, schedule and calendar files as operators keep them: YAML or JSON, alone or by the folder, scripts in
// files of their own. Everything is checked here before anything is sent, each problem named with its file; what only
// the API knows (that a schedule's job exists, what is not carried out yet) it says itself.
package document

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"kanade/libs/catalog"
)

// Kind of a document.
type Kind string

// The kinds.
const (
	Job      Kind = "job"
	Schedule Kind = "schedule"
	Calendar Kind = "calendar"
)

// Document is a file that passed.
type Document struct {
	// File as it was named.
	File string
	Kind Kind
	ID   string
	// Body is what to send: the text of the file, or JSON where a script was put in its place.
	Body []byte
	Type catalog.SourceType
	// Stored is the document as the API would store it, as JSON.
	Stored []byte
}

// OtherKindError says that a file holds a document of another kind.
type OtherKindError struct {
	File string
	Kind Kind
}

func (e *OtherKindError) Error() string {
	return fmt.Sprintf("%s is a %s: use `kanade %s create`", e.File, e.Kind, e.Kind)
}

// Load reads the named files, and of named directories every *.yaml and *.yml by name. Files of a directory that hold
// another kind are left out and returned as skipped; a file named by itself is an error. The error joins what is wrong
// with every file; documents are returned only without one.
func Load(kind Kind, paths []string) (docs []Document, skipped []string, err error) {
	var errs []error
	for _, path := range paths {
		files, isDir, err := list(path)
		errs = append(errs, err)
		for _, file := range files {
			doc, err := read(kind, file)
			var other *OtherKindError
			switch {
			case isDir && errors.As(err, &other):
				skipped = append(skipped, file)
			case err != nil:
				errs = append(errs, err)
			default:
				docs = append(docs, doc)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return docs, skipped, nil
}

func list(path string) (files []string, isDir bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if !info.IsDir() {
		return []string{path}, false, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, true, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	slices.Sort(files)
	if len(files) == 0 {
		return nil, true, fmt.Errorf("%s: no *.yaml or *.yml in it", path)
	}
	return files, true, nil
}

func read(kind Kind, file string) (Document, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Document{}, err
	}
	return Parse(kind, file, text, func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), filepath.FromSlash(name))
		}
		return os.ReadFile(name)
	})
}

// Parse checks one document of the kind. readFile gets the path of a script as the document writes it, relative to the
// document. Errors name the file, one line for each problem.
func Parse(kind Kind, file string, text []byte, readFile func(name string) ([]byte, error)) (Document, error) {
	doc := Document{File: file, Kind: kind, Body: text, Type: catalog.YAML}
	if strings.EqualFold(filepath.Ext(file), ".json") {
		doc.Type = catalog.JSON
	}
	if k := kindOf(text); k != "" && k != kind {
		return Document{}, &OtherKindError{File: file, Kind: k}
	}
	var err error
	switch kind {
	case Job:
		err = doc.job(readFile)
	case Schedule:
		var s *catalog.Schedule
		if s, err = catalog.ParseSchedule(text, doc.Type); err == nil {
			doc.ID = s.ID
			doc.Stored, err = s.Document()
		}
	case Calendar:
		var c *catalog.DayCalendar
		if c, err = catalog.ParseDayCalendar(text, doc.Type); err == nil {
			doc.ID = c.ID
			doc.Stored, err = c.Document()
		}
	}
	if err != nil {
		return Document{}, inFile(file, err)
	}
	return doc, nil
}

func (d *Document) job(readFile func(name string) ([]byte, error)) error {
	m, err := catalog.ParseManifest(d.Body, d.Type)
	if err != nil {
		return err
	}
	d.ID = m.ID
	inlined := m.Execute.ScriptFile != nil
	if inlined {
		if err := m.Inline(readFile); err != nil {
			return err
		}
	}
	d.Stored, err = m.Document()
	if inlined {
		d.Type, d.Body = catalog.JSON, d.Stored
	}
	return err
}

// kindOf tells the kinds apart by what only one of them has at its root; "" is neither, or not readable.
func kindOf(text []byte) Kind {
	var root map[string]any
	if yaml.Unmarshal(text, &root) != nil {
		return ""
	}
	_, execute := root["execute"]
	_, when := root["when"]
	_, jobID := root["job_id"]
	_, days := root["days"]
	switch {
	case days && !execute && !when && !jobID:
		return Calendar
	case execute && !when && !jobID:
		return Job
	case !execute && (when || jobID):
		return Schedule
	}
	return ""
}

func inFile(file string, err error) error {
	var refused *catalog.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", file, err)
	}
	errs := make([]error, len(refused.Problems))
	for i, p := range refused.Problems {
		errs[i] = fmt.Errorf("%s: %s", file, p)
	}
	return errors.Join(errs...)
}
