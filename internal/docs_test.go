package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNamedTestsExist: a document that names a test as its proof names one that is there.
func TestNamedTestsExist(t *testing.T) {
	defined, named := map[string]bool{}, map[string]string{}
	definition, name := regexp.MustCompile(`(?m)^func (Test\w+)\(`), regexp.MustCompile("`(?:e2e )?(Test\\w+)`")
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "..":
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".md"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".md") {
			for _, match := range name.FindAllSubmatch(text, -1) {
				named[string(match[1])] = path
			}
			return nil
		}
		for _, match := range definition.FindAllSubmatch(text, -1) {
			defined[string(match[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(named) < 50 {
		t.Errorf("only %d tests are named in the documents", len(named))
	}
	for test, document := range named {
		if !defined[test] {
			t.Errorf("%s names %s, which is not there", document, test)
		}
	}
}
