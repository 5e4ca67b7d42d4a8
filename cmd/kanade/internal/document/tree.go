package document

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Tree reads the named files, and of named directories every *.yaml, *.yml and *.json below them, whatever kind of
// document each is. Files below a directory that are none are returned as others. Errors are a file named by itself that is
// none, one that can't be read or has an id and is none (left out, it would look as if its document were gone), and two of
// one kind and id. Documents come by kind (calendars, jobs, schedules: what is named before what
// names it) and id, and only without an error, which joins what is wrong with every file.
func Tree(paths []string) (docs []Document, others []string, err error) {
	var errs []error
	seen := map[Kind]map[string]string{Calendar: {}, Job: {}, Schedule: {}}
	for _, path := range paths {
		files, isDir, err := walk(path)
		errs = append(errs, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			kind := kindOf(text)
			switch {
			case kind == "" && isDir && isOther(text):
				others = append(others, file)
				continue
			case kind == "":
				errs = append(errs, fmt.Errorf("%s: neither a job (execute) nor a schedule (when, job_id) nor a calendar (days)", file))
				continue
			}
			doc, err := read(kind, file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if first := seen[kind][doc.ID]; first != "" {
				errs = append(errs, fmt.Errorf("%s: %s %s is in %s already", file, kind, doc.ID, first))
				continue
			}
			seen[kind][doc.ID] = file
			docs = append(docs, doc)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(docs, func(a, b Document) int {
		if a.Kind != b.Kind {
			return strings.Compare(string(a.Kind), string(b.Kind)) // calendar, job, schedule
		}
		return strings.Compare(a.ID, b.ID)
	})
	return docs, others, nil
}

// isOther reports whether a text is readable and not meant for us.
func isOther(text []byte) bool {
	var doc any
	if yaml.Unmarshal(text, &doc) != nil {
		return false
	}
	root, _ := doc.(map[string]any)
	_, id := root["id"]
	return !id
}

// walk lists what may be a document below a path. Hidden directories are left out: they are the tools' own.
func walk(path string) (files []string, isDir bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if !info.IsDir() {
		return []string{path}, false, nil
	}
	err = filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && file != path && strings.HasPrefix(e.Name(), "."):
			return filepath.SkipDir
		case e.IsDir():
			return nil
		}
		if ext := strings.ToLower(filepath.Ext(file)); ext == ".yaml" || ext == ".yml" || ext == ".json" {
			files = append(files, file)
		}
		return nil
	})
	return files, true, err
}
