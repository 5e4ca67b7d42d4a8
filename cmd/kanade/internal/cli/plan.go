package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/document"
	"kanade/libs/catalog"
)

// planFlags say whom an exec reaches and how. A flag counts before the plan file's key: any flag that names endpoints
// replaces the whole target, --wave the whole rollout, --param the one parameter.
type planFlags struct {
	All            bool     `help:"On every endpoint." group:"The plan:"`
	Group          []string `short:"g" aliases:"groups" help:"On the members of this group; may be given again." predictor:"group" group:"The plan:"`
	PC             []string `name:"pc" short:"p" aliases:"pcs" help:"On this endpoint, be it there or not; may be given again." predictor:"pc" group:"The plan:"`
	PCsFile        string   `name:"pcs-file" type:"path" placeholder:"FILE" help:"On the endpoints of this file, one a line." group:"The plan:"`
	Wave           []string `sep:"none" placeholder:"WAVE" help:"A wave of a rollout; given again for each one, in their order; see above." group:"The plan:"`
	Plan           string   `type:"path" placeholder:"FILE" help:"The plan as YAML or JSON; flags count before what it says." group:"The plan:"`
	Jitter         string   `placeholder:"5m" help:"Spread the starts of the endpoints over this time." group:"The plan:"`
	Deadline       string   `placeholder:"WHEN" help:"Nothing begins after it, jitter and further attempts included: 2026-01-31T08:00:00Z, '2026-01-31 08:00' here, or a time from now on, 2h." group:"The plan:"`
	ExpiresAfter   string   `placeholder:"7d" help:"Wait for endpoints that are away for so long after the last wave." group:"The plan:"`
	MaxFailures    string   `placeholder:"5|10%" help:"Halt when more endpoints than this have failed." group:"The plan:"`
	MaxParallel    string   `placeholder:"5|10%" help:"At most so many endpoints at work, those that have failed included; those that are away come last, and hold a place until they answer." group:"The plan:"`
	Retry          string   `placeholder:"2,30s" help:"Try again on the endpoint after a failure: how often, and after which pause." group:"The plan:"`
	Param          []string `sep:"none" placeholder:"NAME=VALUE" help:"A parameter of the job: JSON, or text as it stands (a text that looks like a number needs quotes: COLOR=\"1\"). May be given again." group:"The plan:"`
	RequireTargets bool     `help:"Refuse to run when nobody matches." group:"The plan:"`
}

// waveHelp explains --wave below the flags.
const waveHelp = `A wave says who, and when:

  who    group=canary   percent=10   count=5   pcs=pc-01+pc-02
         percent and count are of the target, and take who is in no wave before; percent=100 takes the rest
  when   delay=10m      from now on; the first wave goes out at once without it
         after          at the end of the wave before; after,delay=10m waits for so long after it
         pause          when 'kanade release' says so

  kanade exec patch --all --wave percent=10 --wave percent=40,after,delay=30m --wave percent=100,pause --max-failures 5%`

// body is the plan as the API takes it, checked. now is the time that a relative deadline counts from.
func (f *planFlags) body(now time.Time) ([]byte, error) {
	p := document.Plan{}
	if f.Plan != "" {
		var err error
		if p, err = document.LoadPlan(f.Plan); err != nil {
			return nil, err
		}
	}
	var names []string
	if f.PCsFile != "" {
		var err error
		if names, err = document.LoadNames(f.PCsFile); err != nil {
			return nil, err
		}
	}
	if err := f.lay(p, names, now); err != nil {
		return nil, err
	}
	if p["target"] == nil && p["rollout"] == nil {
		return nil, errors.New("on which endpoints? Say --all, --group GROUP or --pc PC; --pcs-file, --wave and --plan are other ways")
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if _, err := catalog.ParsePlan(body); err != nil {
		return nil, fmt.Errorf("the plan: %w", err)
	}
	return body, nil
}

// lay puts the flags over a plan. names are those of --pcs-file.
func (f *planFlags) lay(p document.Plan, names []string, now time.Time) error {
	values := map[string]any{}
	if pcs := append(orEmpty(f.PC), names...); f.All || len(f.Group) > 0 || len(pcs) > 0 {
		values["target"] = map[string]any{"all": f.All, "groups": orEmpty(f.Group), "pcs": pcs}
	}
	for key, text := range map[string]string{"jitter": f.Jitter, "expires_after": f.ExpiresAfter} {
		if text != "" {
			values[key] = text
		}
	}
	for key, text := range map[string]string{"max_failures": f.MaxFailures, "max_parallel": f.MaxParallel} {
		if n, err := strconv.Atoi(text); err == nil {
			values[key] = n
		} else if text != "" {
			values[key] = text
		}
	}
	if f.RequireTargets {
		values["require_targets"] = true
	}
	for _, part := range []func(values map[string]any) error{
		f.waves, f.retry,
		func(values map[string]any) error { return f.deadline(values, now) },
		func(values map[string]any) error { return f.params(values, p) },
	} {
		if err := part(values); err != nil {
			return err
		}
	}
	for key, value := range values {
		doc, err := json.Marshal(value)
		if err != nil {
			return err
		}
		p[key] = doc
	}
	return nil
}

func (f *planFlags) waves(values map[string]any) error {
	if len(f.Wave) == 0 {
		return nil
	}
	waves := make([]wave, len(f.Wave))
	for i, text := range f.Wave {
		w, err := parseWave(text)
		if err != nil {
			return fmt.Errorf("--wave %q: %w", text, err)
		}
		if i == 0 && w.Delay == "" && w.After == "" && !w.Pause {
			w.Delay = "0s"
		}
		if w.Delay == "" && w.After == "" && !w.Pause {
			return fmt.Errorf("--wave %q: when does it go out? Say delay=10m, after or pause", text)
		}
		waves[i] = w
	}
	values["rollout"] = map[string]any{"waves": waves}
	return nil
}

// wave is a wave of a plan as --wave can say it.
type wave struct {
	Group   string   `json:"group,omitempty"`
	Percent int      `json:"percent,omitempty"`
	Count   int      `json:"count,omitempty"`
	PCs     []string `json:"pcs,omitempty"`
	Delay   string   `json:"delay,omitempty"`
	After   string   `json:"after,omitempty"`
	Pause   bool     `json:"pause,omitempty"`
}

// parseWave reads "percent=10,after,delay=5m". What the parts mean together is for the catalog to check.
func parseWave(text string) (w wave, err error) {
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, given := strings.Cut(strings.TrimSpace(part), "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if seen[key] {
			return w, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if err := w.set(key, value, given); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *wave) set(key, value string, given bool) (err error) {
	flag := key == "after" || key == "pause"
	if !flag && value == "" {
		given = false
	}
	switch {
	case key == "group" && given:
		w.Group = value
	case key == "percent" && given:
		w.Percent, err = positive(key, strings.TrimSuffix(value, "%"))
	case key == "count" && given:
		w.Count, err = positive(key, value)
	case key == "pcs" && given:
		w.PCs = strings.Split(value, "+")
	case key == "delay" && given:
		w.Delay = value
	case key == "after" && (!given || value == "previous"):
		w.After = "previous"
	case key == "pause" && (!given || value == "true"):
		w.Pause = true
	default:
		return errors.New("expected parts like group=canary, percent=10, count=5, pcs=a+b, delay=10m, after, pause, with commas between them")
	}
	return err
}

func positive(key, text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s: expected a whole number of at least 1, got %q", key, text)
	}
	return n, nil
}

func (f *planFlags) retry(values map[string]any) error {
	if f.Retry == "" {
		return nil
	}
	times, pause, both := strings.Cut(f.Retry, ",")
	n, err := strconv.Atoi(strings.TrimSpace(times))
	if err != nil || !both {
		return fmt.Errorf("--retry: expected how often and after which pause, as in 2,30s; got %q", f.Retry)
	}
	values["retry"] = map[string]any{"max": n, "backoff": strings.TrimSpace(pause)}
	return nil
}

func (f *planFlags) deadline(values map[string]any, now time.Time) error {
	if f.Deadline == "" {
		return nil
	}
	at, err := parseMoment(f.Deadline, now)
	if err != nil {
		return fmt.Errorf("--deadline: %w", err)
	}
	values["deadline_at"] = at.UTC().Format(time.RFC3339)
	return nil
}

// parseMoment reads a time: RFC 3339, a date with a time of the zone of now, or a duration from now on.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	if d, err := catalog.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	return time.Time{}, fmt.Errorf("expected a time like 2026-01-31T08:00:00Z, '2026-01-31 08:00' or 2h, got %q", text)
}

func (f *planFlags) params(values map[string]any, p document.Plan) error {
	if len(f.Param) == 0 {
		return nil
	}
	params := map[string]json.RawMessage{}
	if file := p["params"]; file != nil {
		if err := json.Unmarshal(file, &params); err != nil {
			return fmt.Errorf("%s: params: %w", f.Plan, err)
		}
	}
	given := map[string]bool{}
	for _, text := range f.Param {
		name, value, is := strings.Cut(text, "=")
		if !is || name == "" {
			return fmt.Errorf("--param %q: expected NAME=VALUE", text)
		}
		if given[name] {
			return fmt.Errorf("--param %s is there twice", name)
		}
		given[name] = true
		raw := json.RawMessage(value)
		if !json.Valid(raw) {
			var err error
			if raw, err = json.Marshal(value); err != nil {
				return err
			}
		}
		params[name] = raw
	}
	values["params"] = params
	return nil
}
