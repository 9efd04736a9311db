# Runs {{ name | comment }} on Amazon EC2. Made by dock2uni.
# The network cards of EC2 (ENA) are none that the VM drives, so the instance is a host for it: Debian with
# QEMU and KVM, which EC2 passes on to instances of the families C8i, M8i and R8i and to bare metal.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.33"
    }
  }
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "instance_type" {
  type        = string
  default     = {{ instance | hcl }}
  description = "Has KVM: C8i, M8i, R8i, or bare metal"
}

provider "aws" {
  region = var.region
}

locals {
  image  = {{ image | hcl }}
  sha256 = filesha256(local.image)
}

resource "aws_s3_bucket" "images" {
  bucket_prefix = {{ (cloud_name | truncated(30) ~ "-") | hcl }}
  force_destroy = true
}

resource "aws_s3_object" "disk" {
  bucket      = aws_s3_bucket.images.id
  key         = {{ (cloud_name ~ "-" ~ short ~ ".img") | hcl }}
  source      = local.image
  source_hash = local.sha256
}

# The host may read the image, and nothing else.
resource "aws_iam_role" "host" {
  name_prefix = {{ (cloud_name | truncated(30) ~ "-") | hcl }}

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "image" {
  role = aws_iam_role.host.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = aws_s3_object.disk.arn
    }]
  })
}

resource "aws_iam_instance_profile" "host" {
  name_prefix = {{ (cloud_name | truncated(30) ~ "-") | hcl }}
  role        = aws_iam_role.host.name
}

resource "aws_security_group" "ports" {
  name_prefix = {{ (cloud_name ~ "-") | hcl }}
{%- for port in ports %}

  ingress {
    from_port   = {{ port.host }}
    to_port     = {{ port.host }}
    protocol    = {{ port.proto | hcl }}
    cidr_blocks = ["0.0.0.0/0"]
  }
{%- endfor %}

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

data "aws_ami" "debian" {
  most_recent = true
  owners      = ["136693071363"] # Debian's cloud team

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

locals {
  cloud_config = {
    apt            = { conf = "APT::Install-Recommends \"false\";\n" }
    package_update = true
    packages       = ["qemu-system-x86", "socat", "awscli"]

    write_files = [
{%- include "cloud-host" %}
      {
        path        = {{ ("/usr/local/sbin/" ~ cloud_name ~ "-image") | hcl }}
        permissions = "0755"
        content = join("\n", [
          "#!/bin/sh",
          "# Fetches the disk image: usable only when it is whole.",
          "set -eu",
          "image={{ host_image }}",
          "[ ! -e \"$image\" ] || exit 0",
          "mkdir -p \"$${image%/*}\"",
          "aws s3 cp --quiet --region ${var.region} \\",
          "    s3://${aws_s3_bucket.images.id}/${aws_s3_object.disk.key} \"$image.part\"",
          "echo \"${local.sha256}  $image.part\" | sha256sum --check --quiet",
          "mv \"$image.part\" \"$image\"",
          "",
        ])
      },
    ]

    runcmd = [
      ["systemctl", "daemon-reload"],
      ["systemctl", "enable", "--now", {{ (cloud_name ~ ".service") | hcl }}],
    ]
  }
}

resource "aws_instance" "host" {
  ami                         = data.aws_ami.debian.id
  instance_type               = var.instance_type
  iam_instance_profile        = aws_iam_instance_profile.host.name
  vpc_security_group_ids      = [aws_security_group.ports.id]
  user_data_replace_on_change = true
  depends_on                  = [aws_iam_role_policy.image]

  user_data = "#cloud-config\n${jsonencode(local.cloud_config)}"

  dynamic "cpu_options" {
    for_each = length(regexall("\\.metal", var.instance_type)) == 0 ? [1] : []

    content {
      nested_virtualization = "enabled"
    }
  }

  metadata_options {
    http_tokens = "required"
  }

  tags = {
    Name = {{ name | hcl }}
  }
}

output "address" {
  value = aws_instance.host.public_ip
}
