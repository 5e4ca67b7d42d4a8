package deploy

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/operations.md names every setting that a program reads. The file that holds a secret stands beside the secret.
func TestOperationsNameEverySetting(t *testing.T) {
	manual := read(t, "../docs/operations.md")
	for _, service := range programs {
		settings := regexp.MustCompile(`\$(KANADE_\w+)`).FindAllStringSubmatch(understands(t, service), -1)
		require.NotEmpty(t, settings, service)
		for _, name := range settings {
			require.Contains(t, manual, "`"+strings.TrimSuffix(name[1], "_FILE")+"`", service)
		}
	}
}

// docs/operations.md names every metric that a program has.
func TestOperationsNameEveryMetric(t *testing.T) {
	manual, found := read(t, "../docs/operations.md"), 0
	for _, dir := range []string{"../libs", "../services"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			for _, name := range regexp.MustCompile(`"(kanade_[a-z_]+)"`).FindAllStringSubmatch(read(t, path), -1) {
				found++
				require.Regexp(t, "`"+name[1]+"[`{]", manual, path)
			}
			return nil
		}))
	}
	require.Greater(t, found, 10)
}
