# Runs {{ name | comment }} on Amazon EC2. Made by dock2uni.
# The file is what `dock2uni convert --format ami` writes. The account needs the role `vmimport`
# (AWS, "Required permissions for VM Import/Export").

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "instance_type" {
  type    = string
  default = "t3.small"
}

provider "aws" {
  region = var.region
}

resource "aws_s3_bucket" "images" {
  bucket_prefix = {{ (cloud_name ~ "-") | hcl }}
  force_destroy = true
}

resource "aws_s3_object" "disk" {
  bucket = aws_s3_bucket.images.id
  key    = {{ (cloud_name ~ "-" ~ short ~ ".raw") | hcl }}
  source = {{ image | hcl }}
}

resource "aws_ebs_snapshot_import" "disk" {
  disk_container {
    format = "RAW"

    user_bucket {
      s3_bucket = aws_s3_bucket.images.id
      s3_key    = aws_s3_object.disk.key
    }
  }
}

resource "aws_ami" "image" {
  name                = {{ (cloud_name ~ "-" ~ short) | hcl }}
  architecture        = "x86_64"
  virtualization_type = "hvm"
  boot_mode           = "uefi-preferred"
  ena_support         = true
  root_device_name    = "/dev/xvda"

  ebs_block_device {
    device_name = "/dev/xvda"
    snapshot_id = aws_ebs_snapshot_import.disk.id
  }
}

resource "aws_security_group" "ports" {
  name_prefix = {{ (cloud_name ~ "-") | hcl }}
{%- for port in ports %}

  ingress {
    from_port   = {{ port.guest }}
    to_port     = {{ port.guest }}
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

resource "aws_instance" "vm" {
  ami                    = aws_ami.image.id
  instance_type          = var.instance_type
  vpc_security_group_ids = [aws_security_group.ports.id]

  tags = {
    Name = {{ name | hcl }}
  }
}

output "address" {
  value = aws_instance.vm.public_ip
}
