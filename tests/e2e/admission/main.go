// Evaluates a MutatingAdmissionPolicy on pods with the API server's own code: what it compiles, and what it makes of
// each pod, without an API server.
//
// stdin: {"policy": {…}, "cases": [{"name": "", "namespace": {…}, "pod": {…}}]}
// stdout: {"problems": ["…"], "results": [{"name": "", "matched": true, "error": "", "pod": {…}}]}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
)

type testCase struct {
	Name      string           `json:"name"`
	Namespace corev1.Namespace `json:"namespace"`
	Pod       map[string]any   `json:"pod"`
}

type result struct {
	Name    string         `json:"name"`
	Matched bool           `json:"matched"`
	Error   string         `json:"error"`
	Pod     map[string]any `json:"pod"`
}

var (
	podKind     = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var input struct {
		Policy v1.MutatingAdmissionPolicy `json:"policy"`
		Cases  []testCase                 `json:"cases"`
	}
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&input); err != nil {
		return err
	}
	compiled, problems, err := compile(&input.Policy)
	if err != nil {
		return err
	}
	results := []result{}
	for _, one := range input.Cases {
		results = append(results, compiled.evaluate(one))
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"problems": problems, "results": results})
}

type policy struct {
	compiler *plugincel.CompositedCompiler
	matcher  matchconditions.Matcher
	patchers []patch.Patcher
}

// compile does what the admission plugin does, and says what does not compile. The conditions are compiled once more
// without variables, as the API server does when somebody applies the policy.
func compile(given *v1.MutatingAdmissionPolicy) (*policy, []string, error) {
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	environments := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	problems := []string{}
	compiler, err := plugincel.NewCompositedCompiler(environments)
	if err != nil {
		return nil, nil, err
	}
	for _, variable := range given.Spec.Variables {
		accessor := &validating.Variable{Name: variable.Name, Expression: variable.Expression}
		if err := compiler.CompileAndStoreVariable(accessor, options, environment.NewExpressions).Error; err != nil {
			problems = append(problems, fmt.Sprintf("variable %s: %v", variable.Name, err))
		}
	}
	plain := plugincel.NewCompiler(environments)
	conditions := make([]plugincel.ExpressionAccessor, len(given.Spec.MatchConditions))
	for at := range given.Spec.MatchConditions {
		accessor := (*matchconditions.MatchCondition)(&given.Spec.MatchConditions[at])
		conditions[at] = accessor
		if err := plain.CompileCELExpression(accessor, options, environment.NewExpressions).Error; err != nil {
			problems = append(problems, fmt.Sprintf("condition %s: %v", accessor.Name, err))
		}
	}
	made := &policy{compiler: compiler}
	made.matcher = matchconditions.NewMatcher(
		compiler.CompileCondition(conditions, options, environment.StoredExpressions),
		given.Spec.FailurePolicy, "policy", "validate", given.Name)
	options.HasPatchTypes = true
	for at, mutation := range given.Spec.Mutations {
		accessor := &patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}
		evaluator := compiler.CompileMutatingEvaluator(accessor, options, environment.NewExpressions)
		for _, err := range evaluator.CompilationErrors() {
			problems = append(problems, fmt.Sprintf("mutation %d: %v", at, err))
		}
		made.patchers = append(made.patchers, patch.NewJSONPatcher(evaluator))
	}
	return made, problems, nil
}

func (p *policy) evaluate(given testCase) result {
	found := result{Name: given.Name, Pod: given.Pod}
	object, err := decoded(given.Pod)
	if err != nil {
		found.Error = err.Error()
		return found
	}
	attributes := admission.NewAttributesRecord(object, nil, podKind, given.Namespace.Name, object.GetName(), podResource,
		"", admission.Create, &metav1.CreateOptions{}, false, &user.DefaultInfo{Name: "system:replicaset-controller"})
	versioned := &admission.VersionedAttributes{
		Attributes: attributes, VersionedObject: admission.NewLazyObject(object),
		VersionedKind: podKind,
	}
	ctx := p.compiler.CreateContext(context.Background())
	matched := p.matcher.Match(ctx, versioned, nil, nil)
	if matched.Error != nil {
		found.Error = matched.Error.Error()
		return found
	}
	if found.Matched = matched.Matches; !found.Matched {
		return found
	}
	for _, patcher := range p.patchers {
		mutated, err := patcher.Patch(ctx, patch.Request{
			MatchedResource: podResource, VersionedAttributes: versioned, ObjectInterfaces: interfaces(),
			Namespace: &given.Namespace,
		}, celconfig.RuntimeCELCostBudget)
		if err != nil {
			found.Error = err.Error()
			return found
		}
		out, ok := mutated.(*unstructured.Unstructured)
		if !ok {
			found.Error = errors.New("not an unstructured object").Error()
			return found
		}
		found.Pod = out.Object
	}
	return found
}

func interfaces() admission.ObjectInterfaces {
	return admission.NewObjectInterfacesFromScheme(runtime.NewScheme())
}

// decoded reads a pod as the API server does: whole numbers stay whole.
func decoded(pod map[string]any) (*unstructured.Unstructured, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	return object, object.UnmarshalJSON(text)
}
