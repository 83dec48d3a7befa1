"""Makes stacks of deploy/cloudformation on moto's CloudFormation, one after the other, each with the outputs of those before
it by their names, as docs/aws.md has it done. What came of it is printed as one JSON object.

    stacks.py URL REGION PLAN

PLAN is a file with {"stacks": [{"name": …, "template": its text, "parameters": {…}}, …]}.
"""

import ast
import base64
import json
import sys

import boto3
import yaml

url, region, plan = sys.argv[1:]


def client(service):
    return boto3.client(
        service, endpoint_url=url, region_name=region, aws_access_key_id="test", aws_secret_access_key="test"
    )


def parameters_of(template):
    """Their names, without those of its resources' short forms of functions."""
    lines = template.split("\nParameters:\n")[1].splitlines()
    end = next(n for n, line in enumerate(lines) if line and not line.startswith(" "))
    return [line.strip(" :") for line in lines[:end] if line.startswith("  ") and not line.startswith("   ")]


def make(name, template, parameters, outputs):
    known = {"Certificate": certificate, **outputs, **parameters}
    given = {key: known[key] for key in parameters_of(template) if key in known}
    unknown = parameters.keys() - given.keys()
    assert not unknown, f"{name} has no parameter {unknown}"
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=template,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    )
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def policies(role):
    """All statements that a role has."""
    name = role.split("/")[-1]
    assert not iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    statements = []
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        # moto gives what Python prints for some of them.
        document = document if isinstance(document, dict) else ast.literal_eval(document)
        statements += document["Statement"]
    return statements


def of_template(launch_template):
    versions = ec2.describe_launch_template_versions(LaunchTemplateId=launch_template)
    return versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]["UserData"]


def of_instance(instance):
    return ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]


def boot(encoded):
    """A machine's user data, and the files that it writes."""
    text = base64.b64decode(encoded).decode()
    assert text.startswith("#cloud-config\n")
    return {"user_data": text, "files": {file["path"]: file["content"] for file in yaml.safe_load(text)["write_files"]}}


cloudformation, iam, ec2 = client("cloudformation"), client("iam"), client("ec2")
certificate = client("acm").request_certificate(DomainName="api.example.com")["CertificateArn"]
outputs = {}
with open(plan) as file:
    stacks = json.load(file)["stacks"]
for stack in stacks:
    outputs |= make(stack["name"], stack["template"], stack["parameters"], outputs)
roles = {name: policies(value) for name, value in outputs.items() if name.endswith("Role")}
user_data = {"MasterTemplate": of_template, "ChainInstance": of_instance}
boots = {name: boot(of(outputs[name])) for name, of in user_data.items() if name in outputs}
json.dump({"outputs": outputs, "statements": roles, "boots": boots}, sys.stdout)
