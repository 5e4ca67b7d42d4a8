package document

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"
)

// Plan is a plan as its file writes it, key by key: what it says is for [catalog.ParsePlan] to check when it is whole,
// since a command line may add to it.
type Plan map[string]jsontext.Value

// LoadPlan reads a plan file: JSON when its name ends so, else YAML. A key that is there twice is an error.
func LoadPlan(file string) (Plan, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(filepath.Ext(file), ".json") {
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return nil, fmt.Errorf("%s: not readable as YAML: %s", file, yaml.FormatError(err, false, false))
		}
	}
	var p Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("%s: not readable as a plan: %w", file, err)
	}
	if p == nil {
		return nil, fmt.Errorf("%s: the document is empty", file)
	}
	return p, nil
}

// LoadNames reads a list of ids, one a line. Blank lines and what follows a # are left out.
func LoadNames(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		line, _, _ = strings.Cut(line, "#")
		if name := strings.TrimSpace(line); name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no endpoint in it; it holds one id a line", file)
	}
	return names, nil
}
